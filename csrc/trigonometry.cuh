// Sine and cosine in f32 from additions and multiplications alone, so that every backend rounds
// the same way; rust/src/envs/trigonometry.rs is the same text.
//
// Angles within a quarter turn of zero go straight into minimax polynomials (largest error 0.8 and
// 1.0 units in the last place). All others are first reduced exactly, by multiplying the integer
// significand with the bits of 2/pi that matter for its exponent (Payne and Hanek, "Radian
// reduction for trigonometric functions", SIGNUM Newsletter 18, 1983): every finite angle keeps
// its accuracy, however large. Infinity and NaN give NaN.
#pragma once

#include "host_device.cuh"

struct SinCos {
    float sin, cos;
};

struct Reduced {
    u32 quadrant;
    float remainder;
};

HD SinCos sin_cos_near(float angle) {
    const float z = angle * angle;
    const float sine = -0.16666655f + z * (0.00833216f + z * -0.00019515213f);
    const float cosine = 0.041666646f + z * (-0.0013887315f + z * 0.000024433073f);
    return {angle + angle * (z * sine), 1.0f - (0.5f * z - (z * z) * cosine)};
}

// A word of zeros, then the first 224 bits of 2/pi.
TABLE u32 TWO_OVER_PI[8] = {0,           0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u,
                            0xF534DDC0u, 0xDB629599u, 0x3C439041u, 0xFE5163ABu};

// Thirty-two bits of 2/pi from a bit position on; position 32 is the first bit after the point.
HD u64 two_over_pi(u32 position) {
    const u32 index = position >> 5;
    const u64 pair = static_cast<u64>(TWO_OVER_PI[index]) << 32 | TWO_OVER_PI[index + 1];
    return (pair << (position & 31)) >> 32;
}

// The nearest multiple of a quarter turn, modulo four, and the signed distance to it.
HD Reduced reduce(float angle) {
    const u32 bits = bits_of(angle);
    const u64 significand = (bits & 0x007FFFFFu) | 0x00800000u;
    // Bits of 2/pi above this place contribute whole turns only.
    const u32 place = ((bits >> 23) & 0xFF) - 120;
    const u64 turns = ((significand * two_over_pi(place)) << 32) +
                      significand * two_over_pi(place + 32) +
                      ((significand * two_over_pi(place + 64)) >> 32);
    const u32 quadrant = static_cast<u32>((turns + (1ull << 61)) >> 62);
    const double fraction = static_cast<double>(static_cast<i64>(turns << 2));
    // pi/2 scaled by 2^-64: the fraction of a quarter turn is a 64-bit integer.
    const double quarter_turn = 1.5707963267948966 / 18446744073709551616.0;
    const float remainder = static_cast<float>(fraction * quarter_turn) + (angle - angle);
    if (bits >> 31) {
        return {(0u - quadrant) & 3, -remainder};
    }
    return {quadrant, remainder};
}

HD SinCos sin_cos(float angle) {
    const float quarter_pi = 0.785398163f;
    if (angle >= -quarter_pi && angle <= quarter_pi) {
        return sin_cos_near(angle);
    }
    const Reduced reduced = reduce(angle);
    const SinCos near = sin_cos_near(reduced.remainder);
    switch (reduced.quadrant) {
        case 0:
            return near;
        case 1:
            return {near.cos, -near.sin};
        case 2:
            return {-near.sin, -near.cos};
        default:
            return {-near.cos, near.sin};
    }
}

// The angle less whole turns, from minus half a turn up to half a turn; accurate up to 2^16 turns.
HD float angle_normalize(float angle) {
    // A turn in two parts, the first of so few bits that its multiples are exact.
    const float turn = 6.28125f;
    const float rest = 0.0019353072f;
    const float turns = floor_of((angle + 3.14159265f) / 6.28318531f);
    return angle - turns * turn - turns * rest;
}
