/* Panels of codes times many tokens with products of matrices (i8mm): one instruction multiplies eight inputs of two rows with those of two
 * tokens. Sums of products of codes are exact integers, and are scaled in the order of `multiply_codes`: the bits are the same. */

/* Of four rows two vectors of four inputs each, as eight inputs of two rows each. */
INLINE void eights_of(const uint8_t *w, uint8x16_t two_rows[2]) {
  const uint32x4_t near = vreinterpretq_u32_u8(vld1q_u8(w)), far = vreinterpretq_u32_u8(vld1q_u8(w + 4 * tile_rows));
  two_rows[0] = vreinterpretq_u8_u32(vzip1q_u32(near, far));
  two_rows[1] = vreinterpretq_u8_u32(vzip2q_u32(near, far));
}

/* What the sums of two tokens start with, for two rows. */
INLINE int32x4_t starts_of(const input_meta *two) {
  const int32x2_t starts = {two[0].start, two[1].start};
  return vcombine_s32(starts, starts);
}

/* sums[tokens][tile_rows] += the groups of a panel times four tokens, eight rows at a time: more sums do not fit the registers. */
INLINE void multiply_four(const uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  enum { tokens = 4, pairs = 2 };
  for (int row = 0; row < tile_rows; row += 8) {
    float32x4_t total[2 * tokens];
    UNROLL for (int t = 0; t < tokens; t++)
      UNROLL for (int m = 0; m < 2; m++) total[2 * t + m] = vld1q_f32(sums + tile_rows * t + row + 4 * m);
    for (int g = 0; g < groups; g++) {
      const uint8_t *w = panel + g * (code_panel + scale_panel) + 4 * row;
      const float *scales = (const float *)(panel + g * (code_panel + scale_panel) + code_panel) + row;
      const int8_t *x = codes + (size_t)g * padded * group_inputs;
      const input_meta *of = meta + (size_t)g * padded;
      int32x4_t part[4 * pairs];
      UNROLL for (int p = 0; p < pairs; p++)
        UNROLL for (int n = 0; n < 4; n++) part[4 * p + n] = starts_of(of + 2 * p);
      UNROLL for (int k = 0; k < group_inputs; k += 16) {
        int8x16_t inputs[2][pairs];
        UNROLL for (int p = 0; p < pairs; p++) {
          const int8_t *at = x + 2 * group_inputs * p + k;
          const int64x2_t first = vreinterpretq_s64_s8(vld1q_s8(at)), second = vreinterpretq_s64_s8(vld1q_s8(at + group_inputs));
          inputs[0][p] = vreinterpretq_s8_s64(vzip1q_s64(first, second));
          inputs[1][p] = vreinterpretq_s8_s64(vzip2q_s64(first, second));
        }
        UNROLL for (int half = 0; half < 2; half++) {
          uint8x16_t rows[4];
          UNROLL for (int m = 0; m < 2; m++) eights_of(w + tile_rows * (k + 8 * half) + 16 * m, rows + 2 * m);
          UNROLL for (int p = 0; p < pairs; p++)
            UNROLL for (int n = 0; n < 4; n++) part[4 * p + n] = vusmmlaq_s32(part[4 * p + n], rows[n], inputs[half][p]);
        }
      }
      UNROLL for (int p = 0; p < pairs; p++) {
        UNROLL for (int m = 0; m < 2; m++) {
          const int32x4_t first = part[4 * p + 2 * m], second = part[4 * p + 2 * m + 1];
          const float32x4_t scale = vld1q_f32(scales + 4 * m);
          float32x4_t *own = total + 4 * p + m;
          own[0] = multiply_add_four(vmulq_n_f32(vcvtq_f32_s32(vuzp1q_s32(first, second)), of[2 * p].scale), scale, own[0]);
          own[2] = multiply_add_four(vmulq_n_f32(vcvtq_f32_s32(vuzp2q_s32(first, second)), of[2 * p + 1].scale), scale, own[2]);
        }
      }
    }
    UNROLL for (int t = 0; t < tokens; t++)
      UNROLL for (int m = 0; m < 2; m++) vst1q_f32(sums + tile_rows * t + row + 4 * m, total[2 * t + m]);
  }
}

/* A panel of codes times `padded` tokens, a multiple of four. */
static void multiply_matrices(const uint8_t *panel, int groups, const int8_t *codes, const input_meta *meta, int padded, float *sums) {
  for (int t = 0; t < padded; t += 4) {
    multiply_four(panel, groups, codes + group_inputs * t, meta + t, padded, sums + tile_rows * t);
  }
}
