// A program of edgecomp in an application: ids 1, 2, 3 in, the scores of the last one out.
#include <edgecomp/executorch.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstdio>

using executorch::extension::from_blob;
using executorch::extension::Module;

int main(int, char** arguments) {
  ec_executorch_register();                             // of the static library; the shared one has done it already
  Module module(arguments[1], Module::LoadMode::Mmap);  // mapped: the default copies the file into memory
  int64_t ids[] = {1, 2, 3};
  const auto input = from_blob(ids, {1, 3}, executorch::aten::ScalarType::Long);
  const auto result = module.forward(*input);
  if (!result.ok()) return 1;
  const auto& y = result->at(0).toTensor();
  const float* last = y.const_data_ptr<float>() + y.size(1) * y.size(2) - y.size(2);
  for (int i = 0; i < y.size(2); ++i) std::printf("%.6g ", last[i]);
  std::printf("\n");
}
