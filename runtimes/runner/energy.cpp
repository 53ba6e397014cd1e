#include "runner/energy.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runner/clock.h"
#include "runner/fail.h"
#include "runner/files.h"
#include "runner/measure.h"

namespace edgecomp::runner {
namespace {

constexpr double kMicro = 1e-6;
constexpr int64_t kMillisecond = 1'000'000;

// Of a meter that was found: a reading that is left out would be taken for energy, or for none.
[[noreturn]] void FailReading(const std::string& what) {
  Fail(ErrorClass::kDevice, what + " must be readable as long as energy is measured, and could not be read any more");
}

double ReadOrFail(const std::string& path) {
  const std::optional<long long> value = ReadNumber(path);
  if (!value) FailReading(path);
  return static_cast<double>(*value);
}

// Tells joules since some moment (a counter), or watts now.
class Meter {
 public:
  virtual ~Meter() = default;
  virtual const std::string& Source() const = 0;
  virtual bool Counts() const = 0;
  virtual double Read() = 0;
  virtual int64_t PollNs() const = 0;  // no finer than it is worth reading
};

// https://docs.kernel.org/power/powercap/powercap.html: microjoules of each package, which begin again at max_energy_range_uj.
class Rapl final : public Meter {
 public:
  explicit Rapl(const std::string& sys) {
    for (const std::string& zone : Glob(sys + "/class/powercap/intel-rapl:[0-9]*")) {
      const std::string name = ReadText(zone + "/name").value_or("");
      if (name.rfind("package", 0) != 0) continue;
      if (!ReadNumber(zone + "/energy_uj")) {
        refused_ = zone + "/energy_uj";
        continue;
      }
      zones_.push_back({zone, static_cast<double>(ReadNumber(zone + "/max_energy_range_uj").value_or(0)), 0, 0});
      zones_.back().last = Microjoules(zones_.back());
      source_ += (source_.empty() ? "rapl " : " + ") + name;
    }
  }
  bool found() const { return !zones_.empty(); }
  const std::string& refused() const { return refused_; }

  const std::string& Source() const override { return source_; }
  bool Counts() const override { return true; }
  int64_t PollNs() const override { return kMillisecond; }
  double Read() override {
    double total = 0;
    for (Zone& zone : zones_) {
      const double now = Microjoules(zone);
      zone.total += now >= zone.last ? now - zone.last : now - zone.last + zone.range;
      zone.last = now;
      total += zone.total;
    }
    return total * kMicro;
  }

 private:
  struct Zone {
    std::string path;
    double range, last, total;
  };
  static double Microjoules(const Zone& zone) { return ReadOrFail(zone.path + "/energy_uj"); }

  std::vector<Zone> zones_;
  std::string source_, refused_;
};

// https://docs.kernel.org/hwmon/ina2xx.html: microwatts. Of several sensors the first, which the source says.
class Ina final : public Meter {
 public:
  explicit Ina(const std::string& sys) {
    int64_t sensors = 0;
    for (const std::string& chip : Glob(sys + "/class/hwmon/hwmon*")) {
      const std::string name = ReadText(chip + "/name").value_or("");
      if (name.rfind("ina", 0) != 0 || !ReadNumber(chip + "/power1_input")) continue;
      if (++sensors > 1) continue;
      path_ = chip + "/power1_input";
      source_ = "hwmon " + name;
      update_ns_ = std::max<int64_t>(ReadNumber(chip + "/update_interval").value_or(0), 1) * kMillisecond;
    }
    if (sensors > 1) source_ += ", the first of " + std::to_string(sensors);
  }
  bool found() const { return !path_.empty(); }

  const std::string& Source() const override { return source_; }
  bool Counts() const override { return false; }
  int64_t PollNs() const override { return std::max<int64_t>(update_ns_ / 2, 5 * kMillisecond); }
  double Read() override { return ReadOrFail(path_) * kMicro; }

 private:
  std::string path_, source_;
  int64_t update_ns_ = 0;
};

// https://www.raspberrypi.com/documentation/computers/os.html (vcgencmd pmic_read_adc): lines "VDD_CORE_A current(7)=0.8308A" and
// "VDD_CORE_V volt(15)=0.7202V", of each rail. What the board draws past its controller (USB) is not in them.
class Pmic final : public Meter {
 public:
  Pmic() { found_ = Watts().value_or(0) > 0; }
  bool found() const { return found_; }

  const std::string& Source() const override { return source_; }
  bool Counts() const override { return false; }
  int64_t PollNs() const override { return 100 * kMillisecond; }  // each reading starts a program
  double Read() override {
    const std::optional<double> watts = Watts();
    if (!watts) FailReading(source_);
    return *watts;
  }

 private:
  static std::optional<double> Watts() {
    std::FILE* pipe = popen("vcgencmd pmic_read_adc 2>/dev/null", "r");
    if (pipe == nullptr) return std::nullopt;
    std::vector<std::pair<std::string, double>> amperes;
    double watts = 0;
    char line[256], name[64];
    while (std::fgets(line, sizeof(line), pipe) != nullptr) {
      const std::string text = line;
      const size_t equals = text.find('=');
      if (equals == std::string::npos || std::sscanf(line, " %63s", name) != 1) continue;
      const std::string rail = name;
      if (rail.size() < 3) continue;
      const std::string stem = rail.substr(0, rail.size() - 2), kind = rail.substr(rail.size() - 2);
      const double value = std::strtod(text.c_str() + equals + 1, nullptr);
      if (kind == "_A") {
        amperes.emplace_back(stem, value);
      } else if (kind == "_V") {
        for (const auto& [current, ampere] : amperes) watts += current == stem ? ampere * value : 0;
      }
    }
    if (pclose(pipe) != 0) return std::nullopt;
    return watts;
  }

  const std::string source_ = "vcgencmd pmic_read_adc";
  bool found_ = false;
};

std::unique_ptr<Meter> FindMeter(const std::string& sys) {
  auto rapl = std::make_unique<Rapl>(sys);
  if (rapl->found()) return rapl;
  auto ina = std::make_unique<Ina>(sys);
  if (ina->found()) return ina;
  auto pmic = std::make_unique<Pmic>();
  if (pmic->found()) return pmic;
  const std::string hint = rapl->refused().empty() ? "" : "; " + rapl->refused() + " is there and may not be read: run as root";
  Fail(ErrorClass::kRuntimeUnavailable,
       "energy needs RAPL (/sys/class/powercap), an INA sensor (/sys/class/hwmon) or a Raspberry Pi 5's vcgencmd pmic_read_adc" +
           hint);
}

// Adds up joules from its start to its end, on a thread of its own where watts must be read in between.
class Span {
 public:
  explicit Span(Meter* meter) : meter_(meter), start_ns_(Now()), last_ns_(start_ns_), last_(meter->Read()), first_(last_) {
    thread_ = std::thread([this] {
      while (!ended_) {
        usleep(static_cast<useconds_t>(meter_->PollNs() / 1000));
        Take();
      }
    });
  }
  void End() {
    ended_ = true;
    thread_.join();
    Take();
  }
  double joules() const { return meter_->Counts() ? last_ - first_ : joules_; }
  int64_t duration_ns() const { return last_ns_ - start_ns_; }
  int64_t updates() const { return updates_; }
  double smallest_step() const { return smallest_step_; }

 private:
  void Take() {
    const double value = meter_->Read();
    const int64_t now = Now();
    joules_ += (value + last_) / 2 * static_cast<double>(now - last_ns_) * 1e-9;
    if (value != last_) {
      ++updates_;
      const double step = std::abs(value - last_);
      smallest_step_ = smallest_step_ > 0 ? std::min(smallest_step_, step) : step;
    }
    last_ = value;
    last_ns_ = now;
  }

  Meter* meter_;
  int64_t start_ns_, last_ns_;
  double last_, first_, joules_ = 0, smallest_step_ = 0;
  int64_t updates_ = 0;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

void WriteSpan(const Span& span, Json* json) {
  json->BeginObject();
  json->Member("joules", span.joules());
  json->Member("duration_ns", span.duration_ns());
  json->Member("updates", span.updates());
  json->Member("smallest_step", span.smallest_step());
  json->EndObject();
}

}  // namespace

void MeasureEnergy(Backend* backend, const Request& request, Json* json) {
  const std::unique_ptr<Meter> meter = FindMeter(request.sys);
  backend->Start();
  backend->Load();
  const std::vector<Tensor> inputs = ReadInputs(backend->Inputs(), request);
  backend->SetInputs(inputs);
  for (int64_t i = 0; i < request.warmup; ++i) backend->Run();

  Span idle(meter.get());
  usleep(static_cast<useconds_t>(request.idle_ns / 1000));
  idle.End();
  Span busy(meter.get());
  const int64_t start = Now();
  int64_t inferences = 0;
  while (Now() - start < request.min_duration_ns || inferences < request.min_iterations) {
    backend->Run();
    ++inferences;
  }
  busy.End();

  json->BeginObject();
  json->Member("source", meter->Source());
  json->Member("counts", meter->Counts());
  json->Member("inferences", inferences);
  json->Key("idle");
  WriteSpan(idle, json);
  json->Key("busy");
  WriteSpan(busy, json);
  json->EndObject();
}

}  // namespace edgecomp::runner
