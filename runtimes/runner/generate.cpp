#include "runner/generate.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "runner/clock.h"
#include "runner/fail.h"
#include "runner/memory.h"

namespace edgecomp::runner {
namespace {

// A host that is silent for so long has gone, whatever its connection says; people think for minutes.
constexpr unsigned kPatienceS = 24 * 3600;

struct Turn {
  int64_t keep = 0;
  int64_t most = 0;
  std::vector<int64_t> tokens;
  std::vector<double> numbers;
};

// Numbers that `parse` takes off the line, which holds nothing else.
template <class T, class Parse>
std::vector<T> Numbers(const std::string& line, Parse parse) {
  std::vector<T> numbers;
  const char* text = line.c_str();
  while (*text != '\0') {
    char* end = nullptr;
    numbers.push_back(parse(text, &end));
    if (end == text || (*end != ' ' && *end != '\0')) {
      Fail(ErrorClass::kConfig, "a turn must be asked for by numbers, got '" + line.substr(0, 100) + "'");
    }
    text = *end == ' ' ? end + 1 : end;
  }
  return numbers;
}

// The next turn; nothing where no more are asked for.
std::optional<Turn> ReadTurn(const Request& request, std::istream& lines) {
  std::string asked, numbers;
  if (!std::getline(lines, asked) || !std::getline(lines, numbers)) return std::nullopt;
  Turn turn;
  turn.tokens = Numbers<int64_t>(asked, [](const char* text, char** end) { return std::strtoll(text, end, 10); });
  turn.numbers = Numbers<double>(numbers, [](const char* text, char** end) { return std::strtod(text, end); });
  if (turn.tokens.size() < 3 || turn.tokens[0] < 0 || turn.tokens[1] < 1) {
    Fail(ErrorClass::kConfig, "a turn must keep 0 tokens or more, write at least one, and give at least one");
  }
  turn.keep = turn.tokens[0];
  turn.most = turn.tokens[1];
  turn.tokens.erase(turn.tokens.begin(), turn.tokens.begin() + 2);
  if (request.sampling.temperature > 0 && static_cast<int64_t>(turn.numbers.size()) < turn.most) {
    Fail(ErrorClass::kConfig, "a turn must bring a random number for each token to be written");
  }
  return turn;
}

template <class Write>
void Tell(const char* what, Write write) {
  Json json;
  json.BeginObject();
  json.Key(what);
  write(&json);
  json.EndObject();
  WritePart(json.text() + "\n");
}

void TellToken(int64_t token, int64_t ns) {
  Json json;
  json.BeginObject();
  json.Member("token", token);
  json.Member("ns", ns);
  json.EndObject();
  WritePart(json.text() + "\n");
}

void WriteText(Decoder* decoder, const Turn& turn, const Request& request) {
  if (turn.keep > decoder->Length()) {
    Fail(ErrorClass::kConfig, "a turn must keep at most the " + std::to_string(decoder->Length()) + " tokens that there are, got " +
                                  std::to_string(turn.keep));
  }
  decoder->Rewind(turn.keep);
  int64_t start = Now();
  Logits logits = decoder->Feed(turn.tokens.data(), static_cast<int64_t>(turn.tokens.size()));
  const int64_t prompt_ns = Now() - start;
  Tell("prompt", [&](Json* json) {
    json->BeginObject();
    json->Member("tokens", static_cast<int64_t>(turn.tokens.size()));
    json->Member("ns", prompt_ns);
    json->EndObject();
  });
  start = Now();
  const int64_t most = std::min(turn.most, request.context - decoder->Length());
  int64_t written = 0;
  while (written < most) {
    const size_t place = static_cast<size_t>(written);
    const int64_t token = Choose(logits, request.sampling, turn.numbers.empty() ? 0 : turn.numbers[place]);
    ++written;
    TellToken(token, Now() - start);
    if (std::find(request.stops.begin(), request.stops.end(), token) != request.stops.end()) break;
    if (written < most) logits = decoder->Feed(&token, 1);
  }
  Tell("turn", [&](Json* json) {
    json->BeginObject();
    json->Member("tokens", written);
    json->Key("memory");
    ReadMemory(request.files).Write(json);
    json->Member("cache_bytes", decoder->CacheBytes());
    json->EndObject();
  });
}

}  // namespace

void Generate(Backend* backend, const Request& request, std::istream& turns, Json* json) {
  backend->Start();
  ResetPeak();
  const int64_t start = Now();
  backend->Load();
  const std::unique_ptr<Decoder> decoder = backend->OpenDecoder();
  const int64_t load_ns = Now() - start;
  Tell("ready", [&](Json* told) {
    told->BeginObject();
    told->Member("load_ns", load_ns);
    told->EndObject();
  });
  int64_t count = 0;
  while (true) {
    alarm(kPatienceS);
    const std::optional<Turn> turn = ReadTurn(request, turns);
    if (!turn) break;
    alarm(static_cast<unsigned>(request.deadline_s));
    WriteText(decoder.get(), *turn, request);
    ++count;
  }
  json->BeginObject();
  json->Member("turns", count);
  json->EndObject();
}

}  // namespace edgecomp::runner
