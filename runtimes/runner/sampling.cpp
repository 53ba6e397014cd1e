#include "runner/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace edgecomp::runner {
namespace {

// Tokens by their logits, the largest first and equal ones by their number; the first `top_k` of them, or all.
std::vector<int64_t> Likeliest(const Logits& logits, int64_t top_k) {
  std::vector<int64_t> order(logits.count);
  std::iota(order.begin(), order.end(), 0);
  const int64_t all = static_cast<int64_t>(order.size());
  const int64_t kept = top_k == 0 ? all : std::min(top_k, all);
  std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int64_t a, int64_t b) {
    return logits.data[a] != logits.data[b] ? logits.data[a] > logits.data[b] : a < b;
  });
  order.resize(static_cast<size_t>(kept));
  return order;
}

// The place of the first sum of weights above `value`, or that reaches it: the last place where none does.
size_t Reached(const std::vector<double>& weights, double value, bool above) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    sum += weights[i];
    if (above ? sum > value : sum >= value) return i;
  }
  return weights.size() - 1;
}

}  // namespace

int64_t Choose(const Logits& logits, const Sampling& sampling, double number) {
  if (sampling.temperature == 0) return std::max_element(logits.data, logits.data + logits.count) - logits.data;
  const std::vector<int64_t> order = Likeliest(logits, sampling.top_k);
  std::vector<double> weights;
  weights.reserve(order.size());
  const double largest = double{logits.data[order[0]]} / sampling.temperature;
  for (const int64_t token : order) weights.push_back(std::exp(double{logits.data[token]} / sampling.temperature - largest));
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  weights.resize(Reached(weights, sampling.top_p * all, /*above=*/false) + 1);
  const double kept = std::accumulate(weights.begin(), weights.end(), 0.0);
  return order[Reached(weights, number * kept, /*above=*/true)];
}

}  // namespace edgecomp::runner
