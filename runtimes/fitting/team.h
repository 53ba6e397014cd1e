// Threads that share a loop's iterations, kept from one loop to the next: starting some for each of a small matrix's twenty loops
// would take longer than the loops.
#ifndef EDGECOMP_FITTING_TEAM_H_
#define EDGECOMP_FITTING_TEAM_H_

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace edgecomp::fitting {

class Team {
 public:
  // At least one thread, the caller's. Where the system gives no more, those that there are do all.
  explicit Team(int64_t threads) {
    const int64_t wanted = std::min<int64_t>(threads - 1, kMostHelpers);
    while (helpers_ < wanted) {
      seats_[helpers_] = {this, helpers_ + 1};
      if (pthread_create(&ids_[helpers_], nullptr, &Team::Serve, &seats_[helpers_]) != 0) break;
      ++helpers_;
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    Announce(nullptr, nullptr);
    for (int32_t i = 0; i < helpers_; ++i) pthread_join(ids_[i], nullptr);
    pthread_cond_destroy(&changed_);
    pthread_mutex_destroy(&mutex_);
  }

  // work(thread, i) for every i below count, once; threads take what comes next. `thread` is below what the team was asked for.
  template <class Work>
  void Run(int64_t count, const Work& work) {
    std::atomic<int64_t> next{0};
    const auto loop = [&](int32_t thread) {
      for (int64_t i = next++; i < count; i = next++) work(thread, i);
    };
    if (helpers_ == 0 || count <= 1) return loop(0);
    busy_ = helpers_;
    Announce([](const void* task, int32_t thread) { (*static_cast<const decltype(loop)*>(task))(thread); }, &loop);
    loop(0);
    WaitUntil([this] { return busy_ == 0; });
  }

 private:
  using Call = void (*)(const void* task, int32_t thread);
  struct Seat {
    Team* team;
    int32_t thread;
  };
  static constexpr int64_t kMostHelpers = 255;
  static constexpr int kSpins = 2000;  // some 50 us: longer than what is done between two loops by one thread

  void Announce(Call call, const void* task) {
    call_ = call;
    task_ = task;
    pthread_mutex_lock(&mutex_);
    ++loops_;
    pthread_cond_broadcast(&changed_);
    pthread_mutex_unlock(&mutex_);
  }

  template <class Condition>
  void WaitUntil(const Condition& holds) {
    for (int i = 0; i < kSpins; ++i) {
      if (holds()) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&mutex_);
    while (!holds()) pthread_cond_wait(&changed_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }

  static void* Serve(void* argument) {
    const Seat seat = *static_cast<const Seat*>(argument);
    Team& team = *seat.team;
    for (int64_t seen = 0;; ++seen) {
      team.WaitUntil([&] { return team.loops_ > seen; });
      if (team.call_ == nullptr) return nullptr;
      team.call_(team.task_, seat.thread);
      if (--team.busy_ == 0) {
        pthread_mutex_lock(&team.mutex_);
        pthread_cond_broadcast(&team.changed_);
        pthread_mutex_unlock(&team.mutex_);
      }
    }
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
  std::atomic<int64_t> loops_{0};  // announced so far; the end is the last
  std::atomic<int32_t> busy_{0};   // helpers that have not ended the present one
  Call call_ = nullptr;
  const void* task_ = nullptr;
  int32_t helpers_ = 0;
  Seat seats_[kMostHelpers];
  pthread_t ids_[kMostHelpers];
};

}  // namespace edgecomp::fitting

#endif  // EDGECOMP_FITTING_TEAM_H_
