// Sizes that refuse to wrap: a chain of operations remembers whether any of them overflowed.
#ifndef EDGECOMP_CORE_CHECKED_MATH_H_
#define EDGECOMP_CORE_CHECKED_MATH_H_

#include <cstddef>
#include <cstdint>

namespace edgecomp {

constexpr int64_t CeilDiv(int64_t value, int64_t divisor) { return value / divisor + (value % divisor != 0); }

class CheckedSize {
 public:
  // `value` is not negative.
  CheckedSize(int64_t value) : value_(static_cast<size_t>(value)) {}

  CheckedSize& operator*=(const CheckedSize& other) {
    overflow_ |= other.overflow_ | __builtin_mul_overflow(value_, other.value_, &value_);
    return *this;
  }
  CheckedSize& operator+=(const CheckedSize& other) {
    overflow_ |= other.overflow_ | __builtin_add_overflow(value_, other.value_, &value_);
    return *this;
  }
  friend CheckedSize operator*(CheckedSize a, const CheckedSize& b) { return a *= b; }
  friend CheckedSize operator+(CheckedSize a, const CheckedSize& b) { return a += b; }

  // Signed arithmetic on sizes and offsets follows, so the upper half of size_t is out of range as well.
  bool fits() const { return !overflow_ && value_ <= static_cast<size_t>(PTRDIFF_MAX); }
  size_t value() const { return value_; }

 private:
  size_t value_;
  bool overflow_ = false;
};

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_CHECKED_MATH_H_
