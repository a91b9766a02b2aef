/** SHA-256 of the bytes of numbers, or of the UTF-8 form of a string, as 64 lower-case hexadecimal digits. */
export async function sha256Hex(data: ArrayBufferView | string): Promise<string> {
  const { buffer, byteOffset, byteLength } = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  // WebCrypto refuses views of shared memory.
  const owned = bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : bytes.slice();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", owned as Uint8Array<ArrayBuffer>));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
