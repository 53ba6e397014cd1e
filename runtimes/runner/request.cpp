#include "runner/request.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

int64_t Number(const std::string& key, const std::string& value) {
  char* end = nullptr;
  errno = 0;
  const long long number = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end != '\0' || errno != 0 || number < 0) {
    Fail(ErrorClass::kConfig, "request: " + key + " must be a whole number of at least 0, got '" + value + "'");
  }
  return number;
}

double Real(const std::string& key, const std::string& value) {
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0' || !std::isfinite(number)) {
    Fail(ErrorClass::kConfig, "request: " + key + " must be a number, got '" + value + "'");
  }
  return number;
}

Action ParseAction(const std::string& value) {
  if (value == "machine") return Action::kMachine;
  if (value == "describe") return Action::kDescribe;
  if (value == "measure") return Action::kMeasure;
  if (value == "trace") return Action::kTrace;
  if (value == "endure") return Action::kEndure;
  if (value == "sessions") return Action::kSessions;
  if (value == "energy") return Action::kEnergy;
  if (value == "generate") return Action::kGenerate;
  Fail(ErrorClass::kConfig,
       "request: action must be machine, describe, measure, trace, endure, sessions, energy or generate, got '" + value + "'");
}

void Set(Request* request, const std::string& key, const std::string& value) {
  if (key == "action") {
    request->action = ParseAction(value);
  } else if (key == "artifact") {
    request->artifact = value;
  } else if (key == "file") {
    request->files.push_back(value);
  } else if (key == "runtime") {
    request->runtime = value;
  } else if (key == "library") {
    request->library = value;
  } else if (key == "threads") {
    request->threads = static_cast<int>(Number(key, value));
  } else if (key == "cpu") {
    request->cpus.push_back(static_cast<int>(Number(key, value)));
  } else if (key == "input") {
    const size_t split = value.rfind('=');  // a name may hold the sign, a path of ours does not
    if (split == std::string::npos) Fail(ErrorClass::kConfig, "request: input must be NAME=FILE, got '" + value + "'");
    request->inputs.emplace_back(value.substr(0, split), value.substr(split + 1));
  } else if (key == "output_folder") {
    request->output_folder = value;
  } else if (key == "max_output_bytes") {
    request->max_output_bytes = Number(key, value);
  } else if (key == "warmup") {
    request->warmup = Number(key, value);
  } else if (key == "min_iterations") {
    request->min_iterations = Number(key, value);
  } else if (key == "min_duration_ns") {
    request->min_duration_ns = Number(key, value);
  } else if (key == "max_duration_ns") {
    request->max_duration_ns = Number(key, value);
  } else if (key == "interval_ns") {
    request->interval_ns = std::max<int64_t>(Number(key, value), 1);
  } else if (key == "sessions") {
    request->sessions = Number(key, value);
  } else if (key == "idle_ns") {
    request->idle_ns = Number(key, value);
  } else if (key == "deadline_s") {
    request->deadline_s = Number(key, value);
  } else if (key == "step") {
    request->step = Number(key, value);
  } else if (key == "depth") {
    request->depth = Number(key, value);
  } else if (key == "context") {
    request->context = Number(key, value);
  } else if (key == "cache_in_place") {
    request->cache_in_place = Number(key, value) != 0;
  } else if (key == "stop") {
    request->stops.push_back(Number(key, value));
  } else if (key == "temperature") {
    request->sampling.temperature = Real(key, value);
  } else if (key == "top_k") {
    request->sampling.top_k = Number(key, value);
  } else if (key == "top_p") {
    request->sampling.top_p = Real(key, value);
  } else if (key == "sys") {
    request->sys = value;
  } else {
    Fail(ErrorClass::kConfig, "request: unknown key '" + key + "'; host and runner must be of the same version");
  }
}

}  // namespace

Request ReadRequest(std::istream& lines) {
  Request request;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) break;
    const size_t split = line.find('=');
    if (split == std::string::npos) Fail(ErrorClass::kConfig, "request: a line must be key=value, got '" + line + "'");
    Set(&request, line.substr(0, split), line.substr(split + 1));
  }
  return request;
}

}  // namespace edgecomp::runner
