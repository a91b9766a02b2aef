/**
 * Whether a name taken from a file may be opened beside it: one path component of portable characters, so it cannot
 * leave the directory, name a drive or a stream, or hide.
 */
export function isPlainFileName(name: string): boolean {
  return name.length <= 255 && /^[A-Za-z0-9_][A-Za-z0-9._+-]*$/.test(name);
}
