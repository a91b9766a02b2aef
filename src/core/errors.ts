import { cleaned, clip } from "./quote.js";

/** However large the file is that a message speaks of. */
const maxMessageCharacters = 8192;
/** Of a file's name, a field, a problem. */
const maxPartCharacters = 400;
/** Problems that a message lists; the others are counted. */
const problemsListed = 30;

/**
 * Every error this package throws on purpose. A message says what was wrong, where, what was expected and what to do;
 * the fields carry the same as data, so that a caller can act without parsing prose. Messages are bounded and hold no
 * control characters but line ends: names in them come from files, and they end on terminals.
 */
export class RarefyError extends Error {
  // Written out in every class, because a bundler that shortens names gives the classes others.
  override readonly name: string = "RarefyError";

  constructor(message: string, options?: { cause?: unknown }) {
    super(clip(cleaned(message), maxMessageCharacters), options);
  }
}

/** What a `FormatError` tells: where, what, and what to do. */
export interface FormatErrorDetails {
  /** File name, URL or another name of the source. */
  file: string;
  /** Tensor name or dotted path of the field, when one is to blame. */
  field?: string;
  /** What was found. */
  problem: string;
  /** What would have been right. */
  expected?: string;
  /** What the user can do. */
  hint?: string;
}

/** A file, config, recipe or text that does not hold what it must. */
export class FormatError extends RarefyError {
  override readonly name = "FormatError";
  readonly details: FormatErrorDetails;
  constructor(details: FormatErrorDetails, options?: { cause?: unknown }) {
    const part = (text: string) => clip(cleaned(text).replaceAll("\n", "\\n"), maxPartCharacters);
    const where = details.field === undefined ? part(details.file) : `${part(details.file)}: ${part(details.field)}`;
    const expected = details.expected === undefined ? "" : `; expected ${part(details.expected)}`;
    const hint = details.hint === undefined ? "" : `. ${details.hint}`;
    super(`${where}: ${part(details.problem)}${expected}${hint}`, options);
    this.details = details;
  }
}

/** A call or command whose arguments do not fit together. */
export class UsageError extends RarefyError {
  override readonly name = "UsageError";
}

/** A backend or machine that cannot do what was asked: no memory, no shared memory, a lost device. */
export class DeviceError extends RarefyError {
  override readonly name = "DeviceError";
}

/** A pass whose numbers are NaN or infinite although the weights are finite. */
export class NonFiniteError extends RarefyError {
  override readonly name = "NonFiniteError";
}

/** A server that cannot be reached, answers with an error status or breaks off. */
export class NetworkError extends RarefyError {
  override readonly name = "NetworkError";
  /** HTTP status; undefined where there was no answer. */
  readonly status?: number;
  /** How long the server asks to wait. */
  readonly retryAfterMs?: number;
  constructor(message: string, options?: { cause?: unknown; status?: number; retryAfterMs?: number }) {
    super(message, options);
    this.status = options?.status;
    this.retryAfterMs = options?.retryAfterMs;
  }
}

/** Several independent problems reported at once, so that they can be mended at once. */
export class ProblemsError extends RarefyError {
  override readonly name = "ProblemsError";
  readonly problems: readonly string[];
  constructor(title: string, problems: readonly string[]) {
    const listed = problems.slice(0, problemsListed).map((p) => `  - ${p}`);
    if (problems.length > listed.length) listed.push(`  … and ${problems.length - listed.length} more`);
    super(`${title}\n${listed.join("\n")}`);
    this.problems = problems;
  }
}

/** A disk that is full, a place that cannot be written to. Nothing is left half-written. */
export class StorageError extends RarefyError {
  /** As the system calls it: "ENOSPC", "EROFS" … */
  readonly code: string;
  constructor(message: string, options: { cause?: unknown; code: string }) {
    super(message, options);
    this.code = options.code;
  }
}

/** An output, or a download, that another process is working on. */
export class BusyError extends RarefyError {
  /** The file by which the other process says so. */
  readonly lock: string;
  constructor(message: string, options: { cause?: unknown; lock: string }) {
    super(message, options);
    this.lock = options.lock;
  }
}
