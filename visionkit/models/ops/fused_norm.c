/* Batch normalisation, the addition of a shortcut and ReLU in as few passes over memory as possible; see fused_norm.py.
 *
 * Maps are [rows, channels]: rows = B * H * W of a channels_last tensor, bf16 (as uint16) or float32. Statistics are
 * summed in float32 over at most BLOCK rows and in float64 beyond. Callers bring all memory.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EACH_PROCESSOR
#endif

#define BLOCK 256
#define TILE 512 /* channels at a time: their sums stay in the first-level cache */

#define JOIN(a, b) a##_##b
#define NAMED(a, b) JOIN(a, b)
#define NAME(a) NAMED(a, SUFFIX)

/* Rows and the part of a space of each thread. */
#define FOR_EACH_THREAD _Pragma("omp parallel for num_threads(threads) schedule(static, 1)") for (long t = 0; t < threads; t++)
#define FROM (rows * t / threads)
#define COUNT (rows * (t + 1) / threads - FROM)

static void join_sums(double *sums, long channels, long threads) {
    for (long t = 1; t < threads; t++)
        for (long c = 0; c < 2 * channels; c++) sums[c] += sums[2 * channels * t + c];
}

#define T uint16_t
#define SUFFIX bf16
static inline float NAME(load)(uint16_t v) {
    uint32_t bits = (uint32_t)v << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline uint16_t NAME(store)(float value) { /* to the nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0 : rounded);
}
#include "fused_norm_kernels.h"
#undef T
#undef SUFFIX

#define T float
#define SUFFIX f32
static inline float NAME(load)(float value) { return value; }
static inline float NAME(store)(float value) { return value; }
#include "fused_norm_kernels.h"
