#include "runner/machine.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>

#if defined(__GLIBC__)
#include <gnu/libc-version.h>
#endif

#include "runner/files.h"

namespace edgecomp::runner {
namespace {

// "name: value" lines; the first of each name counts, so those of the first processor.
std::map<std::string, std::string> Fields(const std::string& text, char separator) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t split = line.find(separator);
    if (split == std::string::npos) continue;
    const std::string name = line.substr(0, line.find_last_not_of(" \t", split - (split > 0)) + 1);
    const size_t value = line.find_first_not_of(" \t", split + 1);
    fields.emplace(name, value == std::string::npos ? "" : line.substr(value));
  }
  return fields;
}

std::optional<std::string> Find(const std::map<std::string, std::string>& fields, const char* name) {
  const auto found = fields.find(name);
  return found == fields.end() ? std::nullopt : std::optional<std::string>(found->second);
}

// The processor's name; on ARM, where there is none, the implementer and part numbers.
std::optional<std::string> CpuModel(const std::map<std::string, std::string>& cpuinfo) {
  if (const auto name = Find(cpuinfo, "model name")) return name;
  const auto part = Find(cpuinfo, "CPU part");
  if (!part) return std::nullopt;
  // https://github.com/util-linux/util-linux/blob/master/sys-utils/lscpu-arm.c, of ARM's own cores those that boards have.
  static constexpr std::pair<const char*, const char*> kParts[] = {
      {"0xd03", "Cortex-A53"}, {"0xd04", "Cortex-A35"}, {"0xd05", "Cortex-A55"},  {"0xd08", "Cortex-A72"},  {"0xd09", "Cortex-A73"},
      {"0xd0a", "Cortex-A75"}, {"0xd0b", "Cortex-A76"}, {"0xd0c", "Neoverse-N1"}, {"0xd40", "Neoverse-V1"}, {"0xd41", "Cortex-A78"},
  };
  const std::string implementer = Find(cpuinfo, "CPU implementer").value_or("unknown");
  for (const auto& [number, name] : kParts) {
    if (implementer == "0x41" && *part == number) return std::string("ARM ") + name;
  }
  return "implementer " + implementer + " part " + *part;
}

std::vector<std::string> CpuFeatures(const std::map<std::string, std::string>& cpuinfo) {
  const auto flags = Find(cpuinfo, "flags");
  std::istringstream words(flags ? *flags : Find(cpuinfo, "Features").value_or(""));
  std::vector<std::string> features;
  for (std::string word; words >> word;) features.push_back(word);
  std::sort(features.begin(), features.end());
  return features;
}

int64_t UsableCpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : sysconf(_SC_NPROCESSORS_ONLN);
}

std::string System(const utsname& names) {
  for (const char* path : {"/etc/os-release", "/usr/lib/os-release"}) {
    const auto text = ReadText(path);
    auto name = text ? Find(Fields(*text, '='), "PRETTY_NAME") : std::nullopt;
    if (!name) continue;
    name->erase(std::remove(name->begin(), name->end(), '"'), name->end());
    return *name;
  }
  return names.sysname;
}

std::string LibcVersion() {
#if defined(__GLIBC__)
  return std::string("glibc ") + gnu_get_libc_version();
#else
  return "not glibc";
#endif
}

// The board's name: the device tree's on ARM, the firmware's elsewhere.
std::optional<std::string> Board(const std::string& sys) {
  for (const char* path :
       {"/firmware/devicetree/base/model", "/firmware/devicetree/base/compatible", "/class/dmi/id/product_name"}) {
    if (auto name = ReadText(sys + path); name && !name->empty()) return name;
  }
  return std::nullopt;
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

void WriteMachine(const std::string& sys, Json* json) {
  utsname names = {};
  uname(&names);
  const auto cpuinfo = Fields(ReadText("/proc/cpuinfo").value_or(""), ':');
  const auto total = Find(Fields(ReadText("/proc/meminfo").value_or(""), ':'), "MemTotal");
  json->BeginObject();
  json->Member("cpu_model", CpuModel(cpuinfo));
  json->Member("cpu_features", CpuFeatures(cpuinfo));
  json->Member("cpu_count", static_cast<int64_t>(sysconf(_SC_NPROCESSORS_ONLN)));
  json->Member("usable_cpus", UsableCpus());
  json->Member("memory_bytes", total ? std::optional<int64_t>(std::atoll(total->c_str()) * 1024) : std::nullopt);
  json->Member("governor", ReadText(sys + "/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  json->Member("board", Board(sys));
  json->Member("system", System(names));
  json->Member("kernel", names.release);
  json->Member("architecture", names.machine);
  json->Member("libc", LibcVersion());
  json->EndObject();
}

Conditions ReadConditions(const std::string& sys) {
  Conditions conditions;
  for (const std::string& zone : Glob(sys + "/class/thermal/thermal_zone*")) {
    const auto value = ReadNumber(zone + "/temp");
    if (!value) continue;
    const std::string type = ReadText(zone + "/type").value_or("");
    conditions.temperatures_celsius.emplace_back(BaseName(zone) + (type.empty() ? "" : " " + type),
                                                 static_cast<double>(*value) / 1000);
  }
  for (const std::string& path : Glob(sys + "/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")) {
    if (const auto kilohertz = ReadNumber(path)) conditions.frequencies_hz.push_back(*kilohertz * 1000);
  }
  int64_t events = 0;
  const auto counters = Glob(sys + "/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count");
  for (const std::string& path : counters) events += ReadNumber(path).value_or(0);
  if (!counters.empty()) conditions.throttling.emplace_back("core_throttle_count", events);
  for (const std::string& path : Glob(sys + "/devices/platform/soc/*firmware*/get_throttled")) {
    const auto text = ReadText(path);  // hexadecimal, without 0x
    if (text) conditions.throttling.emplace_back("get_throttled", std::strtoll(text->c_str(), nullptr, 16));
  }
  double load = 0;
  if (const auto text = ReadText("/proc/loadavg"); text && std::sscanf(text->c_str(), "%lf", &load) == 1) {
    conditions.load_average_1min = load;
  }
  return conditions;
}

void Conditions::Write(Json* json) const {
  json->BeginObject();
  json->Member("temperatures_celsius", temperatures_celsius);
  json->Member("frequencies_hz", frequencies_hz);
  json->Member("throttling", throttling);
  json->Member("load_average_1min", load_average_1min);
  json->EndObject();
}

std::optional<int64_t> HighestFrequency(const std::string& sys) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return std::nullopt;
  std::optional<int64_t> highest;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &cpus)) continue;
    const auto kilohertz = ReadNumber(sys + "/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpufreq/scaling_cur_freq");
    if (kilohertz) highest = std::max<int64_t>(highest.value_or(0), *kilohertz * 1000);
  }
  return highest;
}

}  // namespace edgecomp::runner
