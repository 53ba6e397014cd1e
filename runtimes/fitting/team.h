// Threads that share a loop's iterations, kept from one loop to the next: starting some for each of a small matrix's twenty loops
// would take longer than the loops. A loop waits for those that joined it, not for those that come late: on a busy machine a thread
// may get no processor for longer than all loops take.
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
    Announce(kEnd);
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
    call_ = [](const void* task, int32_t thread) { (*static_cast<const decltype(loop)*>(task))(thread); };
    task_ = &loop;
    Announce((state_ & ~kFlags) + kNextLoop + kOpen);
    loop(0);
    state_ &= ~kOpen;
    WaitUntil([this] { return (state_ & kJoined) == 0; });
  }

 private:
  using Call = void (*)(const void* task, int32_t thread);
  struct Seat {
    Team* team;
    int32_t thread;
  };
  static constexpr int64_t kMostHelpers = 255;
  static constexpr int kSpins = 2000;  // some 50 us: longer than what is done between two loops by one thread
  // The state: how many joined the present loop, whether it may be joined, whether all is over, and the loop's number.
  static constexpr uint64_t kJoined = 0xffff;
  static constexpr uint64_t kOpen = 1 << 16;
  static constexpr uint64_t kEnd = 1 << 17;
  static constexpr uint64_t kNextLoop = 1 << 18;
  static constexpr uint64_t kFlags = kNextLoop - 1;

  void Announce(uint64_t state) {
    state_ = state;
    Wake();
  }

  void Wake() {
    pthread_mutex_lock(&mutex_);
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
    uint64_t done = 0;  // the loop that this thread has been part of
    for (;;) {
      uint64_t state = 0;
      team.WaitUntil([&] {
        state = team.state_;
        return (state & kEnd) != 0 || ((state & kOpen) != 0 && state / kNextLoop != done);
      });
      if ((state & kEnd) != 0) return nullptr;
      if (!team.state_.compare_exchange_strong(state, state + 1)) continue;  // closed, or another joined: look again
      done = state / kNextLoop;
      team.call_(team.task_, seat.thread);
      if ((--team.state_ & (kJoined | kOpen)) == 0) team.Wake();
    }
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed_ = PTHREAD_COND_INITIALIZER;
  std::atomic<uint64_t> state_{0};
  Call call_ = nullptr;
  const void* task_ = nullptr;
  int32_t helpers_ = 0;
  Seat seats_[kMostHelpers];
  pthread_t ids_[kMostHelpers];
};

}  // namespace edgecomp::fitting

#endif  // EDGECOMP_FITTING_TEAM_H_
