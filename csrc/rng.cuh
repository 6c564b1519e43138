// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The key is the seed, the counter is (index, step, stream): a draw depends on what it is for and
// not on the launch.
#pragma once

#include "host_device.cuh"

enum Stream : u32 { ENV_RESET = 0, ACTION = 1, PERMUTATION = 2, ENV_STEP = 9 };

struct Words {
    u32 word[4];
};

HD Words philox(u64 seed, u64 index, u32 step, Stream stream) {
    u32 c0 = static_cast<u32>(index);
    u32 c1 = static_cast<u32>(index >> 32);
    u32 c2 = step;
    u32 c3 = stream;
    u32 k0 = static_cast<u32>(seed);
    u32 k1 = static_cast<u32>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const u64 product0 = static_cast<u64>(0xD2511F53u) * c0;
        const u64 product1 = static_cast<u64>(0xCD9E8D57u) * c2;
        c0 = static_cast<u32>(product1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<u32>(product1);
        c2 = static_cast<u32>(product0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<u32>(product0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The upper 24 bits of a word as a number in [0, 1), exact in f32.
HD float unit(u32 word) { return static_cast<float>(word >> 8) * (1.0f / 16777216.0f); }

HD float uniform(u32 word, float low, float high) { return low + unit(word) * (high - low); }

// A whole number from 0 to `count - 1`.
HD i64 choice(u32 word, u32 count) {
    return static_cast<i64>((static_cast<u64>(word) * count) >> 32);
}
