/* Grouped-query attention of one row and of many, with the sums of wasm/assembly/attention.ts in the same order: scores of four
 * queries that share a key head as four sums each, the softmax block by block, values key by key. Several such fours go through the keys
 * together, so that a block is in the first-level cache for all of them.
 *
 * Compiled for AVX-512 and for AVX2: what the other sets have beside these, attention does not need. */
#include "common.h"
#include "names.h"
#ifdef __AVX512F__
#include "vector512.h"
#include "softmax512.h"
#else
#include "vector256.h"
#include "softmax256.h"
#endif
#include "kvcodes.h"

enum { block_keys = rarefy_attention_block_keys, most_fours = rarefy_attention_fours };
static const float hidden_score = -3e38f;

/* eˣ with the polynomial, and the roundings, of `exp4` in wasm/assembly/math.ts. */
INLINE floats exponential(floats x) {
  const floats least = splat_float(-87.33654f), one = splat_float(1);
  const floats clamped = smaller_floats(splat_float(88.37626f), larger_floats(least, x));
  const floats n = nearest_floats(multiply(clamped, splat_float(1.44269504f)));
  floats r = subtract_floats(clamped, multiply(n, splat_float(0.693359375f)));
  r = subtract_floats(r, multiply(n, splat_float(-2.12194440e-4f)));
  floats p = splat_float(1.9875691500e-4f);
  p = add_floats(multiply(p, r), splat_float(1.3981999507e-3f));
  p = add_floats(multiply(p, r), splat_float(8.3334519073e-3f));
  p = add_floats(multiply(p, r), splat_float(4.1665795894e-2f));
  p = add_floats(multiply(p, r), splat_float(1.6666665459e-1f));
  p = add_floats(multiply(p, r), splat_float(5.0000001201e-1f));
  p = add_floats(add_floats(multiply(multiply(p, r), r), r), one);
  return unless_below(multiply(p, power_of_two(n)), x, least);
}

/* Four queries of a key head on their way through the keys. Those beyond `count` are the first again. */
typedef struct {
  /* f32 [key_dim / 4][query][4], and [query][value_dim]. */
  float *queries, *sums;
  __m128 largest, total;
  int first, count;
  /* In order: the slots of each, the ones before those that it sees, where the next block begins, and the last slot. */
  __m128i positions, oldest;
  int next, last;
  /* Of a block mask: blocks with their masks. */
  const uint32_t *entry, *end;
} query_four;

/* A block of keys and values made of codes. */
typedef struct {
  coded_head head;
  float *room;
  int block, count;
} opened_block;

typedef struct {
  const place *at;
  const rarefy_attention *a;
  int head, shared;
  /* f32 [block_keys][4] */
  float *scores;
  opened_block keys, values;
} attending;

/* The inner loops are functions of their own, so that compilers keep their sums in registers. */
#define ALONE static __attribute__((noinline))

INLINE const float *opened(opened_block *of, int block, int n) {
  if (of->block != block || of->count < n) {
    open_head(&of->head, block, n, of->room);
    of->block = block;
    of->count = n;
  }
  return of->room;
}

/* Query n of a key head is row n / shared of query head head · shared + n % shared. */
INLINE size_t query_offset(const attending *to, int n, int stride, int width) {
  return (size_t)(n / to->shared) * (size_t)stride + (size_t)(to->head * to->shared + n % to->shared) * (size_t)width;
}

/* Scores of n keys, and the largest of each query. */
ALONE __m128 score_keys(const attending *to, const query_four *four, const float *keys, int n) {
  const size_t width = (size_t)to->a->key_dim;
  floats largest = splat_float(hidden_score);
  for (int k = 0; k < n; k += keys_at_once) {
    const float *key[keys_at_once];
    floats sums[keys_at_once * query_vectors];
    /* Those beyond the last are the last again. */
    UNROLL for (int i = 0; i < keys_at_once; i++) key[i] = keys + (size_t)smaller(k + i, n - 1) * width;
    UNROLL for (int i = 0; i < keys_at_once * query_vectors; i++) sums[i] = splat_float(0);
    for (size_t j = 0; j < width; j += 4) {
      floats q[query_vectors];
      UNROLL for (int v = 0; v < query_vectors; v++) q[v] = load_floats(four->queries + 4 * j + 4 * lanes * v);
      UNROLL for (int i = 0; i < keys_at_once; i++) {
        const floats columns = repeat_floats(key[i] + j);
        UNROLL for (int v = 0; v < query_vectors; v++) sums[i * query_vectors + v] = multiply_add(columns, q[v], sums[i * query_vectors + v]);
      }
    }
    UNROLL for (int i = 0; i < keys_at_once; i += 4) {
      floats scores[query_vectors];
      add_fours(sums + i * query_vectors, scores);
      UNROLL for (int v = 0; v < query_vectors; v++) {
        store_floats(to->scores + 4 * (k + i + lanes * v), scores[v]);
        largest = larger_floats(largest, scores[v]);
      }
    }
  }
  return largest_four(largest);
}

/* cap · tanh(score / cap), as `softcap4`. */
INLINE __m128 cap_scores(float *scores, int n, float cap) {
  const floats one = splat_float(1), two = splat_float(2);
  floats largest = splat_float(hidden_score);
  for (int k = 0; k < n; k += lanes) {
    const floats twice = multiply(load_floats(scores + 4 * k), splat_float(2 / cap));
    const floats rest = divide_floats(two, add_floats(one, exponential(twice)));
    const floats capped = multiply(subtract_floats(one, rest), splat_float(cap));
    store_floats(scores + 4 * k, capped);
    for (int i = k; i < smaller(k + lanes, n); i++) largest = larger_floats(largest, repeat_floats(scores + 4 * i));
  }
  return first_four(largest);
}

/* Hides what a query does not see of n keys: keys outside its slots, or those whose bit is not set. */
INLINE __m128 hide_scores(float *scores, int n, int block, const query_four *four, const __m128i *seen) {
  __m128 largest = _mm_set1_ps(hidden_score);
  for (int k = 0; k < n; k++) {
    __m128i sees;
    if (seen == NULL) {
      const __m128i slot = _mm_set1_epi32(block + k);
      sees = _mm_andnot_si128(_mm_cmpgt_epi32(slot, four->positions), _mm_cmpgt_epi32(slot, four->oldest));
    } else {
      const __m128i bit = _mm_set1_epi32((int)(1u << k));
      sees = _mm_cmpeq_epi32(_mm_and_si128(*seen, bit), bit);
    }
    const __m128 kept = _mm_blendv_ps(_mm_set1_ps(hidden_score), _mm_loadu_ps(scores + 4 * k), _mm_castsi128_ps(sees));
    _mm_storeu_ps(scores + 4 * k, kept);
    largest = _mm_max_ps(largest, kept);
  }
  return largest;
}

/* Makes weights of scores. Hidden keys weigh nothing; a score that is NaN is not hidden. */
INLINE void weigh_scores(float *scores, int n, __m128 largest) {
  const floats most = repeat_four(largest), hidden = splat_float(-1e38f);
  for (int k = 0; k < n; k += lanes) {
    const floats score = load_floats(scores + 4 * k);
    store_floats(scores + 4 * k, unless_at_most(exponential(subtract_floats(score, most)), score, hidden));
  }
}

/* sums[query] = sums[query] · shrink[query] + Σ weight · value, of so many vectors of columns. */
INLINE void add_columns(int vectors, const float *weights, const float shrink[4], float *sums, size_t width, const float *values, size_t stride, int n) {
  floats total[4 * columns_at_once];
  UNROLL for (int q = 0; q < 4; q++)
    UNROLL for (int v = 0; v < vectors; v++) total[q * vectors + v] = multiply(load_floats(sums + (size_t)q * width + 4 * lanes * v), splat_float(shrink[q]));
  for (int k = 0; k < n; k++) {
    floats value[columns_at_once];
    UNROLL for (int v = 0; v < vectors; v++) value[v] = load_floats(values + (size_t)k * stride + 4 * lanes * v);
    UNROLL for (int q = 0; q < 4; q++) {
      const floats weight = splat_float(weights[4 * k + q]);
      UNROLL for (int v = 0; v < vectors; v++) total[q * vectors + v] = multiply_add(weight, value[v], total[q * vectors + v]);
    }
  }
  UNROLL for (int q = 0; q < 4; q++)
    UNROLL for (int v = 0; v < vectors; v++) store_floats(sums + (size_t)q * width + 4 * lanes * v, total[q * vectors + v]);
}

ALONE void add_many_columns(const float *weights, const float shrink[4], float *sums, size_t width, const float *values, size_t stride, int n) {
  add_columns(columns_at_once, weights, shrink, sums, width, values, stride, n);
}

ALONE void add_few_columns(const float *weights, const float shrink[4], float *sums, size_t width, const float *values, size_t stride, int n) {
  add_columns(1, weights, shrink, sums, width, values, stride, n);
}

/* n keys from slot `block` on. `seen`: bits of the slots that each query sees, where all are not seen in order. */
static void attend_block(attending *to, query_four *four, int block, int n, int whole, const __m128i *seen) {
  const rarefy_attention *a = to->a;
  const int coded = a->code_bits > 0, in_keys = a->values == a->keys;
  const size_t first = (size_t)to->head * (size_t)a->slots + (size_t)block;
  const float *keys = coded ? opened(&to->keys, block, n) : (const float *)at_offset(to->at, a->keys) + first * (size_t)a->key_dim;
  __m128 highest = score_keys(to, four, keys, n);
  if (a->softcap > 0) highest = cap_scores(to->scores, n, a->softcap);
  if (!whole) highest = hide_scores(to->scores, n, block, four, seen);
  const __m128 largest = _mm_max_ps(four->largest, highest);
  float shrink[4];
  const __m128 shrinks = first_four(exponential(repeat_four(_mm_sub_ps(four->largest, largest))));
  _mm_storeu_ps(shrink, shrinks);
  four->largest = largest;
  weigh_scores(to->scores, n, largest);
  __m128 total = _mm_mul_ps(four->total, shrinks);
  for (int k = 0; k < n; k++) total = _mm_add_ps(total, _mm_loadu_ps(to->scores + 4 * k));
  four->total = total;
  const float *values = (const float *)at_offset(to->at, a->values) + first * (size_t)a->value_stride;
  if (coded) values = in_keys ? keys : opened(&to->values, block, n);
  const size_t width = (size_t)a->value_dim, stride = (size_t)a->value_stride;
  const int vectors = a->value_dim / (4 * lanes);
  int v = 0;
  for (; v + columns_at_once <= vectors; v += columns_at_once)
    add_many_columns(to->scores, shrink, four->sums + 4 * lanes * v, width, values + 4 * lanes * v, stride, n);
  for (; v < vectors; v++) add_few_columns(to->scores, shrink, four->sums + 4 * lanes * v, width, values + 4 * lanes * v, stride, n);
}

/* Bits of the slots of a block that each of four queries sees. */
static __m128i seen_by(const attending *to, const query_four *four, uint32_t mask) {
  const rarefy_attention *a = to->a;
  if (mask == 0xffffffff) return _mm_set1_epi32(-1);
  const uint32_t *tables = at_offset(to->at, a->table_of_head), *bits = at_offset(to->at, a->bits);
  uint32_t words[4] = {0, 0, 0, 0};
  for (int i = 0; i < four->count; i++) {
    const int n = four->first + i;
    const size_t table = tables[to->head * to->shared + n % to->shared];
    words[i] = bits[((size_t)mask * (size_t)a->tables + table) * rarefy_rows_of_group + (size_t)(n / to->shared % rarefy_rows_of_group)];
  }
  return _mm_loadu_si128((const void *)words);
}

/* Takes the next block of a four; 0 where there is none left. */
static int attend_next(attending *to, query_four *four) {
  const rarefy_attention *a = to->a;
  if (a->table_of_head == 0) {
    if (four->next > four->last) return 0;
    const int block = four->next, n = smaller(block_keys, four->last + 1 - block);
    four->next += block_keys;
    const __m128i begin = _mm_set1_epi32(block), end = _mm_set1_epi32(block + n - 1);
    const __m128i hides = _mm_or_si128(_mm_cmpgt_epi32(end, four->positions), _mm_xor_si128(_mm_cmpgt_epi32(begin, four->oldest), _mm_set1_epi32(-1)));
    attend_block(to, four, block, n, _mm_testz_si128(hides, hides), NULL);
    return 1;
  }
  if (four->entry >= four->end) return 0;
  const __m128i seen = seen_by(to, four, four->entry[1]);
  const int block = (int)four->entry[0] * rarefy_slots_of_block;
  four->entry += 2;
  /* What none of the four sees is not read. */
  if (_mm_testz_si128(seen, seen)) return 1;
  attend_block(to, four, block, smaller(rarefy_slots_of_block, a->used - block), _mm_test_all_ones(seen), &seen);
  return 1;
}

static void begin_four(const attending *to, query_four *four, int first, int count, float *room) {
  const rarefy_attention *a = to->a;
  *four = (query_four){.queries = room, .sums = room + 4 * (size_t)a->key_dim, .first = first, .count = count};
  int row[4];
  float sink[4];
  for (int i = 0; i < 4; i++) {
    const int n = first + (i < count ? i : 0);
    const float *q = (const float *)at_offset(to->at, a->q) + query_offset(to, n, a->q_stride, a->key_dim);
    for (int j = 0; j < a->key_dim; j += 4) _mm_storeu_ps(room + 4 * j + 4 * i, _mm_mul_ps(_mm_loadu_ps(q + j), _mm_set1_ps(a->scale)));
    row[i] = a->start + n / to->shared;
    sink[i] = a->sinks == 0 ? hidden_score : ((const float *)at_offset(to->at, a->sinks))[to->head * to->shared + n % to->shared];
  }
  memset(four->sums, 0, 4 * (size_t)a->value_dim * sizeof(float));
  /* The sink is a first key whose value is 0. */
  four->largest = _mm_loadu_ps(sink);
  four->total = _mm_set1_ps(a->sinks == 0 ? 0 : 1);
  if (a->table_of_head == 0) {
    four->last = a->start + (a->causal ? (first + count - 1) / to->shared : a->rows - 1);
    four->positions = a->causal ? _mm_loadu_si128((const void *)row) : _mm_set1_epi32(four->last);
    four->oldest = a->window > 0 ? _mm_sub_epi32(four->positions, _mm_set1_epi32(a->window)) : _mm_set1_epi32(-1);
    four->next = a->window > 0 ? larger(0, row[0] - a->window + 1) : 0;
  } else {
    const uint32_t *list = (const uint32_t *)at_offset(to->at, a->lists) + first / to->shared / rarefy_rows_of_group;
    const uint32_t *blocks = at_offset(to->at, a->blocks);
    four->entry = blocks + 2 * (size_t)list[0];
    four->end = blocks + 2 * (size_t)list[1];
  }
}

static void end_four(const attending *to, const query_four *four) {
  const rarefy_attention *a = to->a;
  float share[4], largest[4], total[4];
  /* Who sees nothing gets nothing. */
  _mm_storeu_ps(share, _mm_and_ps(_mm_div_ps(_mm_set1_ps(1), four->total), _mm_cmpneq_ps(four->total, _mm_setzero_ps())));
  _mm_storeu_ps(largest, four->largest);
  _mm_storeu_ps(total, four->total);
  for (int i = 0; i < four->count; i++) {
    const int n = four->first + i;
    float *out = (float *)at_offset(to->at, a->out) + query_offset(to, n, a->out_stride, a->value_dim);
    const float *sums = four->sums + (size_t)i * (size_t)a->value_dim;
    for (int c = 0; c < a->value_dim; c += 4 * lanes) store_floats(out + c, multiply(load_floats(sums + c), splat_float(share[i])));
    if (a->states == 0) continue;
    float *state = (float *)at_offset(to->at, a->states) + 2 * (n / to->shared * a->query_heads + to->head * to->shared + n % to->shared);
    state[0] = largest[i];
    state[1] = total[i];
  }
}

/* Codes of a head: `channels` of a group in a slot, or 0 where a group is a channel. */
static opened_block place_codes(const place *at, const rarefy_attention *a, int head, uint32_t codes, uint32_t scales, uint32_t ring, int width, int channels,
                                float *room) {
  const int by_channel = channels == 0;
  const size_t groups = (size_t)(by_channel ? (a->slots + rarefy_kivi_group - 1) / rarefy_kivi_group : a->slots);
  const size_t per_row = (size_t)(by_channel ? width : (width + channels - 1) / channels);
  const coded_head of = {
      .codes = (const uint8_t *)at_offset(at, codes) + (size_t)head * (size_t)a->slots * code_row_bytes(width, a->code_bits),
      .scales = (const uint32_t *)at_offset(at, scales) + (size_t)head * groups * per_row,
      .ring = (const float *)at_offset(at, ring) + (size_t)head * (size_t)a->ring * (size_t)width,
      .ring_slots = a->ring,
      .coded = a->coded,
      .bits = a->code_bits,
      .width = width,
      .by_channel = by_channel,
      .channels = channels,
  };
  return (opened_block){of, room, -1, 0};
}

static void attend_fours(const place *at, const rarefy_attention *a, int head, int first, int end, uint8_t *scratch) {
  attending to = {.at = at, .a = a, .head = head, .shared = a->query_heads / a->kv_heads, .scores = (float *)scratch};
  const size_t key_dim = (size_t)a->key_dim, value_dim = (size_t)a->value_dim;
  float *rooms = to.scores + rarefy_attention_score_bytes / 4;
  if (a->code_bits > 0) {
    float *const value_room = rooms + block_keys * key_dim;
    to.keys = place_codes(at, a, head, a->keys, a->key_scales, a->key_ring, a->key_dim, a->kivi ? 0 : a->key_dim, rooms);
    if (a->values != a->keys) to.values = place_codes(at, a, head, a->values, a->value_scales, a->value_ring, a->value_dim, a->kivi ? rarefy_kivi_group : a->value_dim, value_room);
    rooms = value_room + block_keys * value_dim;
  }
  query_four fours[most_fours];
  const int count = (end - first + 3) / 4;
  for (int f = 0; f < count; f++) begin_four(&to, fours + f, first + 4 * f, smaller(4, end - first - 4 * f), rooms + (size_t)f * 4 * (key_dim + value_dim));
  for (int left = 1; left;) {
    left = 0;
    for (int f = 0; f < count; f++) left |= attend_next(&to, fours + f);
  }
  for (int f = 0; f < count; f++) end_four(&to, fours + f);
}

int NAMED(attention)(const place *at, const void *record) {
  const rarefy_attention *a = record;
  /* Columns come in whole vectors. */
  const int step = 4 * lanes;
  if (a->key_dim % (a->code_bits > 0 ? step : 4) != 0 || a->value_dim % step != 0) return 0;
  const int queries = a->rows * (a->query_heads / a->kv_heads), fours = (queries + 3) / 4;
  const size_t four_bytes = 16 * (size_t)(a->key_dim + a->value_dim);
  const size_t opened_bytes = a->code_bits > 0 ? 4 * block_keys * (size_t)(a->key_dim + a->value_dim) : 0;
  const int room = (int)(((size_t)a->scratch_bytes - rarefy_attention_score_bytes - opened_bytes) / four_bytes);
  /* So many that there is work for all threads. */
  const int at_once = larger(1, smaller(smaller(most_fours, room), fours * a->kv_heads / (2 * at->threads)));
  const int groups = (fours + at_once - 1) / at_once;
  uint8_t *scratch = (uint8_t *)at_offset(at, a->scratch) + (size_t)at->thread * (size_t)a->scratch_bytes;
  for (int item = take_work(at); item < a->kv_heads * groups; item = take_work(at)) {
    /* Late rows see more keys: the longest work goes first. */
    const int first = 4 * at_once * (groups - 1 - item / a->kv_heads);
    attend_fours(at, a, item % a->kv_heads, first, smaller(queries, first + 4 * at_once), scratch);
  }
  return 1;
}
