// The identity of an artifact, found in the bytes of a file.
#include <cstring>
#include <string>

#include "check.h"
#include "edgecomp/edgecomp.h"

namespace {

std::string Line(const std::string& calibration) {
  return "edgecomp-identity/1 id=" + std::string(64, 'a') + " original=" + std::string(64, 'b') +
         " recipe=" + std::string(64, '3') + " calibration=" + calibration + " edgecomp=0.1.0;";
}

ec_status Find(const std::string& bytes, ec_identity* out) {
  *out = {};
  out->size = sizeof(*out);
  return ec_identity_find(bytes.data(), bytes.size(), out);
}

}  // namespace

TEST(IdentityIsFoundWhereverItLies) {
  ec_identity found;
  CHECK(Find(std::string(1000, 'e') + "edgecomp-identity/1 id=short" + Line(std::string(64, '0')) + "\xff", &found) == EC_OK);
  CHECK(std::string(found.id) == std::string(64, 'a'));
  CHECK(std::string(found.original) == std::string(64, 'b'));
  CHECK(std::string(found.recipe) == std::string(64, '3'));
  CHECK(std::string(found.calibration) == std::string(64, '0'));
  CHECK(std::string(found.edgecomp) == "0.1.0");
  CHECK(Find(Line("-"), &found) == EC_OK);
  CHECK(std::strlen(found.calibration) == 0);
}

TEST(WhatIsNoIdentityIsNotFound) {
  ec_identity found;
  const std::string line = Line("-");
  for (size_t length = 0; length < line.size(); ++length) CHECK(Find(line.substr(0, length), &found) == EC_ERR_IDENTITY);
  CHECK(Find("edgecomp-identity/1 id=" + std::string(64, 'G') + line.substr(87), &found) == EC_ERR_IDENTITY);
  CHECK(ec_identity_find(nullptr, 1, &found) == EC_ERR_NULL_POINTER);
  CHECK(ec_identity_find(line.data(), line.size(), nullptr) == EC_ERR_NULL_POINTER);
  found.size = 1;
  CHECK(ec_identity_find(line.data(), line.size(), &found) == EC_ERR_STRUCT_SIZE);
}
