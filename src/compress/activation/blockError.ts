/**
 * The error of a block's output that the published TEAL code allocates by: the L2 norm along the tokens of the deviation
 * of every channel, averaged over the channels.
 * @param output f32 [tokens, channels]
 * @param reference f32 [tokens, channels], of the dense block
 */
export function blockOutputError(output: Float32Array, reference: Float32Array, channels: number): number {
  const squares = new Float64Array(channels);
  for (let i = 0; i < output.length; ) {
    for (let channel = 0; channel < channels; channel++, i++) squares[channel] += (output[i] - reference[i]) ** 2;
  }
  return squares.reduce((sum, square) => sum + Math.sqrt(square), 0) / channels;
}
