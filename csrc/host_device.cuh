// One source for the GPU (NVRTC, no toolkit headers) and for a C++ compiler on the host.
#pragma once

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#define TABLE __constant__ const
#define UNROLL _Pragma("unroll")
#else
#define HD inline
#define TABLE static const
#define UNROLL
#endif

using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

static_assert(sizeof(u32) == 4 && sizeof(u64) == 8, "fixed-width integers");

// The largest whole number that is not above.
HD float floor_of(float value) {
#ifdef __CUDA_ARCH__
    return floorf(value);
#else
    return __builtin_floorf(value);
#endif
}

// `low` below that, `high` above that; NaN stays.
HD float clip(float value, float low, float high) {
    const float raised = value < low ? low : value;
    return raised > high ? high : raised;
}

HD u32 bits_of(float value) {
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    u32 bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}
