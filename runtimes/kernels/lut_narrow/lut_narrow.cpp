#include "kernels/lut_narrow/lut_narrow.h"

#include <cmath>
#include <cstring>

#include "core/checked_math.h"
#include "kernels/lut/lut_layout.h"

namespace edgecomp {
namespace {

constexpr int64_t kLeastExponent = -120;
constexpr int64_t kLargestExponent = 100;
constexpr int64_t kGroup = 8;  // codes that fill whole bytes, whatever their width

// 2**(i / 16), rounded.
constexpr int kScalesPerOctave = 16;
constexpr float kMantissas[kScalesPerOctave] = {
    0x1p+0f,        0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fe0p+0f, 0x1.3dea64p+0f, 0x1.4bfdaep+0f, 0x1.5ab07ep+0f,
    0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f, 0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};

float StepOf(uint8_t row_scale, int64_t exponent) {
  if (row_scale == 0) return 0.0f;
  return std::ldexp(kMantissas[row_scale % kScalesPerOctave], row_scale / kScalesPerOctave + static_cast<int>(exponent));
}

// What every code stands for, as float32.
struct Entries {
  float values[256];

  Entries(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout) {
    for (int code = 0; code < 1 << layout.code_bits; ++code) {
      values[code] = static_cast<float>(layout.code_bits == 8 ? static_cast<int8_t>(code) : factor.codebook[code]);
    }
  }
};

// The codes of a group as bits, the first one lowest.
uint64_t ReadGroup(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout, int64_t group) {
  uint64_t bits = 0;
  const int64_t offset = group * layout.code_bits, left = layout.code_bytes - offset;
  if (left >= int64_t{sizeof(bits)}) {
    std::memcpy(&bits, factor.codes + offset, sizeof(bits));
  } else {
    std::memcpy(&bits, factor.codes + offset, static_cast<size_t>(left));
  }
  return bits;
}

}  // namespace

ec_status MakeLutNarrowLayout(const ec_lut_narrow_factor& factor, LutNarrowLayout* layout) {
  if (factor.size != sizeof(factor)) return EC_ERR_STRUCT_SIZE;
  if (factor.bits < 1 || factor.bits > 8) return EC_ERR_BITS;
  if (factor.n < 1 || factor.k < 1) return EC_ERR_SHAPE;
  if (factor.exponent < kLeastExponent || factor.exponent > kLargestExponent) return EC_ERR_EXPONENT;
  layout->code_bits = factor.bits >= 7 ? 8 : factor.bits;
  const CheckedSize weights = CheckedSize(factor.n) * factor.k;
  const CheckedSize code_bits = weights * layout->code_bits;
  if (!code_bits.fits() || !(weights * int64_t{sizeof(float)}).fits()) return EC_ERR_OVERFLOW;
  layout->weights = static_cast<int64_t>(weights.value());
  layout->code_bytes = CeilDiv(static_cast<int64_t>(code_bits.value()), 8);
  layout->codebook_bytes = layout->code_bits == 8 ? 0 : int64_t{1} << layout->code_bits;
  return EC_OK;
}

ec_status CheckedLutNarrowLayout(const ec_lut_narrow_factor* factor, LutNarrowLayout* layout) {
  if (factor == nullptr || factor->codes == nullptr || factor->row_scale == nullptr) return EC_ERR_NULL_POINTER;
  const ec_status status = MakeLutNarrowLayout(*factor, layout);
  return status == EC_OK && layout->codebook_bytes > 0 && factor->codebook == nullptr ? EC_ERR_NULL_POINTER : status;
}

void DecodeNarrowRows(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout, int64_t first, int64_t last,
                      float* weights) {
  const Entries entries(factor, layout);
  const int64_t begin = first * factor.k, end = last * factor.k;
  const int64_t mask = (int64_t{1} << layout.code_bits) - 1;
  const auto value_of = [&](uint64_t bits, int64_t place) {
    return entries.values[static_cast<int64_t>(bits >> (place * layout.code_bits)) & mask];
  };
  for (int64_t i = begin; i < end;) {
    const uint64_t bits = ReadGroup(factor, layout, i / kGroup);
    if (i % kGroup == 0 && end - i >= kGroup) {
      for (int64_t place = 0; place < kGroup; ++place) weights[i + place] = value_of(bits, place);
      i += kGroup;
    } else {
      weights[i] = value_of(bits, i % kGroup);
      ++i;
    }
  }
  for (int64_t n = first; n < last; ++n) {
    const float step = StepOf(factor.row_scale[n], factor.exponent);
    for (int64_t k = 0; k < factor.k; ++k) weights[n * factor.k + k] *= step;
  }
}

int32_t DecodeNarrowTile(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout, int64_t first, int64_t channels,
                         uint8_t* panel, float* steps) {
  const int64_t taps = factor.k / channels, fours = CeilDiv(channels, 4);
  const int64_t mask = (int64_t{1} << layout.code_bits) - 1;
  std::memset(panel, 0, static_cast<size_t>(taps * fours * kPlaneBytes));
  std::memset(steps, 0, kTileRows * sizeof(float));
  for (int64_t row = 0; row < kTileRows && first + row < factor.n; ++row) {
    steps[row] = StepOf(factor.row_scale[first + row], factor.exponent);
    int64_t i = (first + row) * factor.k;
    uint64_t bits = ReadGroup(factor, layout, i / kGroup);
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t c = 0; c < channels; ++c, ++i) {
        if (i % kGroup == 0) bits = ReadGroup(factor, layout, i / kGroup);
        const int64_t code = static_cast<int64_t>(bits >> (i % kGroup * layout.code_bits)) & mask;
        panel[(tap * fours + c / 4) * kPlaneBytes + row * 4 + c % 4] =
            static_cast<uint8_t>(layout.code_bits == 8 ? code : factor.codebook[code]);
      }
    }
  }
  int32_t largest = layout.code_bits == 8 ? INT8_MAX : 0;
  for (int64_t i = 0; i < layout.codebook_bytes; ++i) {
    const int32_t magnitude = factor.codebook[i] < 0 ? -factor.codebook[i] : factor.codebook[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

}  // namespace edgecomp

ec_status ec_lut_narrow_check_sizes(const ec_lut_narrow_factor* factor) {
  edgecomp::LutNarrowLayout layout;
  return edgecomp::CheckedLutNarrowLayout(factor, &layout);
}

ec_status ec_lut_narrow_check(const ec_lut_narrow_factor* factor) {
  edgecomp::LutNarrowLayout layout;
  const ec_status status = edgecomp::CheckedLutNarrowLayout(factor, &layout);
  if (status != EC_OK) return status;
  for (int64_t i = 0; i < layout.codebook_bytes; ++i) {
    if (factor->codebook[i] == INT8_MIN) return EC_ERR_CODEBOOKS;
  }
  return EC_OK;
}
