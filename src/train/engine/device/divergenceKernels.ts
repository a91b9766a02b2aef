import { kernel, read, readWrite } from "../../../kernels/internal.js";
import type { DivergenceId } from "../../models/distillation.js";
import { beginLoss, eachClass, vocabularyTotals } from "./rowKernels.js";

/** How far a row of logits z is from that of a teacher: WGSL that makes `apart`, and the gradient of that in class i. */
interface Form {
  before: string;
  slope: string;
}

/** log q of class i, of the student at the temperature, and log p of the teacher. */
const logQ = "((logits[row + i] - top) * sharp - logSum)";
const logP = "((teacher[theirs + i] - theirTop) * sharp - theirLogSum)";

const bothSoftmaxes = /* wgsl */ `
  let sharp = 1.0 / p.temperature;
  var theirTop = -3.0e38;
  ${eachClass("theirTop = max(theirTop, teacher[theirs + i]);")}
  theirTop = largest(t, theirTop);
  var flat = 0.0;
  ${eachClass("flat += exp((logits[row + i] - top) * sharp);")}
  let logSum = log(total(t, flat));
  flat = 0.0;
  ${eachClass("flat += exp((teacher[theirs + i] - theirTop) * sharp);")}
  let theirLogSum = log(total(t, flat));
  var surprise = 0.0;`;
const squared = "p.temperature * p.temperature";

/** As `divergences`, whose gradients are noted there. */
const forms: Readonly<Record<DivergenceId, Form>> = {
  kl: {
    before: /* wgsl */ `${bothSoftmaxes}
  ${eachClass(`let known = ${logP}; surprise += exp(known) * (known - ${logQ});`)}
  let apart = ${squared} * total(t, surprise);`,
    slope: `p.temperature * (exp(${logQ}) - exp(${logP}))`,
  },
  "reverse-kl": {
    before: /* wgsl */ `${bothSoftmaxes}
  ${eachClass(`let own = ${logQ}; surprise += exp(own) * (own - ${logP});`)}
  let mean = total(t, surprise);
  let apart = ${squared} * mean;`,
    slope: `p.temperature * exp(${logQ}) * (${logQ} - ${logP} - mean)`,
  },
  logits: {
    before: /* wgsl */ `
  var sumApart = 0.0;
  ${eachClass("sumApart += logits[row + i] - teacher[theirs + i];")}
  let mean = total(t, sumApart) / f32(p.classes);
  var squares = 0.0;
  ${eachClass("let away = logits[row + i] - teacher[theirs + i] - mean; squares += away * away;")}
  let apart = 0.5 * total(t, squares) / f32(p.classes);`,
    slope: "(logits[row + i] - teacher[theirs + i] - mean) / f32(p.classes)",
  },
};

/**
 * As `crossEntropy` beside a teacher's logits, rows of which lie `teacherStride` apart: the losses of the text and, `rows` behind
 * them, how far each row is from the teacher's. Logits become the gradient of (1 − share) of the one and `share` of the other,
 * both as means over the rows that count.
 */
const taughtKernel = (id: DivergenceId) =>
  kernel({
    name: `train cross entropy and ${id}`,
    params: {
      classes: "u32",
      stride: "u32",
      rows: "u32",
      known: "u32",
      lossOffset: "u32",
      teacherStride: "u32",
      share: "f32",
      temperature: "f32",
    },
    buffers: { logits: readWrite(), losses: readWrite(), labels: read("u32"), teacher: read() },
    code: /* wgsl */ `
${vocabularyTotals}
${beginLoss("losses[p.lossOffset + p.rows + rowNumber] = 0.0;")}
  let theirs = rowNumber * p.teacherStride;
  ${forms[id].before}
  let ofText = (1.0 - p.share) / f32(p.known);
  let ofTeacher = p.share / f32(p.known);
  ${eachClass(`
    let text = exp(logits[row + i] - top) / sum - select(0.0, 1.0, i == label);
    logits[row + i] = ofText * text + ofTeacher * (${forms[id].slope});`)}
  if (t == 0u) {
    losses[p.lossOffset + rowNumber] = loss;
    losses[p.lossOffset + p.rows + rowNumber] = apart;
  }
}`,
  });

/** Of every divergence that is a function of two rows of logits. */
export const divergenceKernels = {
  kl: taughtKernel("kl"),
  "reverse-kl": taughtKernel("reverse-kl"),
  logits: taughtKernel("logits"),
} as const satisfies Readonly<Record<DivergenceId, unknown>>;
