// Measures one artifact on this machine: a request of lines on standard input (request.h), one JSON object on standard output.
//
//   edgecomp-run-NAME < request        --version
//
// Answers are {"machine", "before", "after"} and the action's own object, "description", "measurement", "trace", "endurance",
// "sessions", "energy" or "generation"; or {"error", "message"}. Lines {"interval": ...} come before the answer of "endure", and
// those of generate.h before that of "generate".
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <utility>

#include "runner/backend.h"
#include "runner/decoder_test.h"
#include "runner/endure.h"
#include "runner/energy.h"
#include "runner/fail.h"
#include "runner/generate.h"
#include "runner/json.h"
#include "runner/machine.h"
#include "runner/measure.h"

namespace edgecomp::runner {
namespace {

void Pin(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    if (cpu >= CPU_SETSIZE) Fail(ErrorClass::kConfig, "there is no processor " + std::to_string(cpu));
    CPU_SET(cpu, &set);
  }
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    Fail(ErrorClass::kConfig, std::string("the process cannot run on the processors asked for: ") + std::strerror(errno));
  }
}

int Answer() {
  const Request request = ReadRequest(std::cin);
  alarm(static_cast<unsigned>(request.deadline_s));  // where the host has gone, nobody else would end this process
  Pin(request.cpus);
  Json json;
  json.BeginObject();
  json.Key("machine");
  WriteMachine(request.sys, &json);
  json.Key("before");
  ReadConditions(request.sys).Write(&json);
  if (request.action != Action::kMachine) {
    std::unique_ptr<Backend> backend = MakeBackend(request);
    if (request.step > 0) backend = MakeDecoderTest(std::move(backend), request);
    if (request.action == Action::kDescribe) {
      json.Key("description");
      Describe(backend.get(), &json);
    } else if (request.action == Action::kTrace) {
      json.Key("trace");
      Trace(backend.get(), request, &json);
    } else if (request.action == Action::kEndure) {
      json.Key("endurance");
      Endure(backend.get(), request, &json);
    } else if (request.action == Action::kSessions) {
      json.Key("sessions");
      OpenAndClose(backend.get(), request, &json);
    } else if (request.action == Action::kEnergy) {
      json.Key("energy");
      MeasureEnergy(backend.get(), request, &json);
    } else if (request.action == Action::kGenerate) {
      json.Key("generation");
      Generate(backend.get(), request, std::cin, &json);
    } else {
      json.Key("measurement");
      Measure(backend.get(), request, &json);
    }
  }
  json.Key("after");
  ReadConditions(request.sys).Write(&json);
  json.EndObject();
  WriteAnswer(json.text());
  std::_Exit(0);  // what a runtime does at its end is nobody's concern any more
}

}  // namespace
}  // namespace edgecomp::runner

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--version") == 0) {
    std::printf("%s\n", EDGECOMP_VERSION);
    return 0;
  }
  if (argc != 1) {
    std::fprintf(stderr, "usage: %s < request\n", argv[0]);
    return 2;
  }
  edgecomp::runner::OpenAnswer();
  return edgecomp::runner::Answer();
}
