/* Included by fused_norm.c once for each type T of the maps; NAME adds its suffix, load and store convert to float. */

/* sums[0] and sums[1], [channels] each: x - shift and its square, summed over rows. */
EACH_PROCESSOR static void NAME(sums)(const T *restrict x, const float *restrict shift, double *restrict sums, long rows,
                                      long channels) {
    memset(sums, 0, 2 * channels * sizeof(double));
    for (long c0 = 0; c0 < channels; c0 += TILE) {
        long n = channels - c0 < TILE ? channels - c0 : TILE;
        for (long r0 = 0; r0 < rows; r0 += BLOCK) {
            long last = rows - r0 < BLOCK ? rows : r0 + BLOCK, r = r0;
            float a[TILE] = {0}, b[TILE] = {0};
            for (; r + 3 < last; r += 4) {
                const T *p0 = x + r * channels + c0, *p1 = p0 + channels, *p2 = p1 + channels, *p3 = p2 + channels;
                for (long c = 0; c < n; c++) {
                    float k = shift[c0 + c];
                    float v0 = NAME(load)(p0[c]) - k, v1 = NAME(load)(p1[c]) - k;
                    float v2 = NAME(load)(p2[c]) - k, v3 = NAME(load)(p3[c]) - k;
                    a[c] += (v0 + v1) + (v2 + v3);
                    b[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3);
                }
            }
            for (; r < last; r++)
                for (long c = 0; c < n; c++) {
                    float v = NAME(load)(x[r * channels + c0 + c]) - shift[c0 + c];
                    a[c] += v;
                    b[c] += v * v;
                }
            for (long c = 0; c < n; c++) {
                sums[c0 + c] += a[c];
                sums[channels + c0 + c] += b[c];
            }
        }
    }
}

/* y = x * scale + shift (+ other), with negative values as 0 if relu. */
EACH_PROCESSOR static void NAME(apply)(const T *restrict x, const T *restrict other, const float *restrict scale,
                                       const float *restrict shift, int relu, T *restrict y, long rows, long channels) {
    float low = relu ? 0.0f : -INFINITY;
    for (long r = 0; r < rows; r++, x += channels, y += channels) {
        if (other) {
            for (long c = 0; c < channels; c++) {
                float v = NAME(load)(x[c]) * scale[c] + shift[c] + NAME(load)(other[c]);
                y[c] = NAME(store)(v < low ? low : v); /* NaN stays NaN */
            }
            other += channels;
        } else {
            for (long c = 0; c < channels; c++) {
                float v = NAME(load)(x[c]) * scale[c] + shift[c];
                y[c] = NAME(store)(v < low ? low : v);
            }
        }
    }
}

/* g = dy where y > 0, or dy itself without y; sums[0] and sums[1]: g and g * (x - mean), summed over rows. */
EACH_PROCESSOR static void NAME(backward_sums)(const T *restrict dy, const T *restrict y, const T *restrict x,
                                               const float *restrict mean, T *restrict g, double *restrict sums,
                                               long rows, long channels) {
    memset(sums, 0, 2 * channels * sizeof(double));
    for (long c0 = 0; c0 < channels; c0 += TILE) {
        long n = channels - c0 < TILE ? channels - c0 : TILE;
        for (long r0 = 0; r0 < rows; r0 += BLOCK) {
            long last = rows - r0 < BLOCK ? rows : r0 + BLOCK;
            float a[TILE] = {0}, b[TILE] = {0};
            for (long r = r0; r < last; r++) {
                const T *px = x + r * channels + c0, *pd = dy + r * channels + c0;
                if (y) {
                    const T *py = y + r * channels + c0;
                    T *pg = g + r * channels + c0;
                    for (long c = 0; c < n; c++) {
                        float d = NAME(load)(py[c]) > 0 ? NAME(load)(pd[c]) : 0.0f;
                        pg[c] = NAME(store)(d);
                        a[c] += d;
                        b[c] += d * (NAME(load)(px[c]) - mean[c0 + c]);
                    }
                } else
                    for (long c = 0; c < n; c++) {
                        float d = NAME(load)(pd[c]);
                        a[c] += d;
                        b[c] += d * (NAME(load)(px[c]) - mean[c0 + c]);
                    }
            }
            for (long c = 0; c < n; c++) {
                sums[c0 + c] += a[c];
                sums[channels + c0 + c] += b[c];
            }
        }
    }
}

/* The same where y = relu(x * scale + shift): whether y > 0 is known without it, and g is made again when needed. */
EACH_PROCESSOR static void NAME(backward_sums_relu)(const T *restrict dy, const T *restrict x,
                                                    const float *restrict mean, const float *restrict scale,
                                                    const float *restrict shift, double *restrict sums, long rows,
                                                    long channels) {
    memset(sums, 0, 2 * channels * sizeof(double));
    for (long c0 = 0; c0 < channels; c0 += TILE) {
        long n = channels - c0 < TILE ? channels - c0 : TILE;
        for (long r0 = 0; r0 < rows; r0 += BLOCK) {
            long last = rows - r0 < BLOCK ? rows : r0 + BLOCK;
            float a[TILE] = {0}, b[TILE] = {0};
            for (long r = r0; r < last; r++) {
                const T *px = x + r * channels + c0, *pd = dy + r * channels + c0;
                for (long c = 0; c < n; c++) {
                    float v = NAME(load)(px[c]);
                    float d = v * scale[c0 + c] + shift[c0 + c] > 0 ? NAME(load)(pd[c]) : 0.0f;
                    a[c] += d;
                    b[c] += d * (v - mean[c0 + c]);
                }
            }
            for (long c = 0; c < n; c++) {
                sums[c0 + c] += a[c];
                sums[channels + c0 + c] += b[c];
            }
        }
    }
}

/* dx = g * scale + x * slope + offset; with shift, g counts only where x * scale + shift > 0. */
EACH_PROCESSOR static void NAME(backward_apply)(const T *restrict g, const T *restrict x, const float *restrict scale,
                                                const float *restrict shift, const float *restrict slope,
                                                const float *restrict offset, T *restrict dx, long rows,
                                                long channels) {
    for (long r = 0; r < rows; r++, g += channels, x += channels, dx += channels) {
        if (shift)
            for (long c = 0; c < channels; c++) {
                float v = NAME(load)(x[c]);
                float d = v * scale[c] + shift[c] > 0 ? NAME(load)(g[c]) : 0.0f;
                dx[c] = NAME(store)(d * scale[c] + v * slope[c] + offset[c]);
            }
        else
            for (long c = 0; c < channels; c++)
                dx[c] = NAME(store)(NAME(load)(g[c]) * scale[c] + NAME(load)(x[c]) * slope[c] + offset[c]);
    }
}

/* y from x with the statistics of the batch, or with running ones.
 *
 * weight, bias, running_mean, running_var [channels] can be absent; momentum > 0 updates the running ones; training
 * says whose statistics hold. saved [4, channels] gets scale, shift, mean and 1 / standard deviation; space is
 * [threads + 1, 2, channels].
 */
void NAME(norm_forward)(const T *x, const T *other, const float *weight, const float *bias, float *running_mean,
                        float *running_var, double momentum, double eps, int training, int relu, T *y, float *saved,
                        double *space, long rows, long channels, long threads) {
    float *scale = saved, *shift = saved + channels, *mean = shift + channels, *invstd = mean + channels;
    if (training) {
        for (long c = 0; c < channels; c++) shift[c] = NAME(load)(x[c]); /* near the mean: nothing cancels */
        FOR_EACH_THREAD NAME(sums)(x + FROM * channels, shift, space + 2 * channels * t, COUNT, channels);
        join_sums(space, channels, threads);
    }
    for (long c = 0; c < channels; c++) {
        double m, v;
        if (training) {
            double off = space[c] / rows;
            m = off + shift[c];
            v = space[channels + c] / rows - off * off;
            v = v < 0 ? 0 : v; /* NaN stays NaN */
            if (running_mean && momentum > 0) {
                running_mean[c] += momentum * (m - running_mean[c]);
                running_var[c] += momentum * (v * rows / (rows - 1) - running_var[c]);
            }
        } else {
            m = running_mean[c];
            v = running_var[c];
        }
        double s = 1 / sqrt(v + eps), w = weight ? weight[c] : 1.0, b = bias ? bias[c] : 0.0;
        mean[c] = (float)m;
        invstd[c] = (float)s;
        scale[c] = (float)(w * s);
        shift[c] = (float)(b - m * w * s);
    }
    FOR_EACH_THREAD NAME(apply)(x + FROM * channels, other ? other + FROM * channels : 0, scale, shift, relu,
                                y + FROM * channels, COUNT, channels);
}

/* The gradients of norm_forward with the statistics of the batch.
 *
 * With y, which then was made with a shortcut and ReLU, g gets the gradient of the shortcut. saved and space are those
 * of norm_forward; dweight and dbias [channels].
 */
void NAME(norm_backward)(const T *dy, const T *y, const T *x, int relu, const float *saved, T *g, T *dx, float *dweight,
                         float *dbias, double *space, long rows, long channels, long threads) {
    const float *scale = saved, *shift = saved + channels, *mean = shift + channels, *invstd = mean + channels;
    int again = relu && !y; /* g is not kept */
    if (again)
        FOR_EACH_THREAD NAME(backward_sums_relu)(dy + FROM * channels, x + FROM * channels, mean, scale, shift,
                                                 space + 2 * channels * t, COUNT, channels);
    else
        FOR_EACH_THREAD NAME(backward_sums)(dy + FROM * channels, y ? y + FROM * channels : 0, x + FROM * channels, mean,
                                            g ? g + FROM * channels : 0, space + 2 * channels * t, COUNT, channels);
    join_sums(space, channels, threads);
    float *slope = (float *)(space + 2 * channels), *offset = slope + channels;
    for (long c = 0; c < channels; c++) {
        double first = space[c], second = space[channels + c] * invstd[c];
        dbias[c] = (float)first;
        dweight[c] = (float)second;
        double k = -(double)scale[c] * invstd[c] * second / rows;
        slope[c] = (float)k;
        offset[c] = (float)(-(double)scale[c] * first / rows - k * mean[c]);
    }
    const T *from = g ? g : dy;
    FOR_EACH_THREAD NAME(backward_apply)(from + FROM * channels, x + FROM * channels, scale, again ? shift : 0, slope,
                                         offset, dx + FROM * channels, COUNT, channels);
}
