"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny_models

if TYPE_CHECKING:
    from edgecomp.checkpoint import CompressedModel

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is first imported
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported


@pytest.fixture(scope="session")
def empty_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A custom-op library that registers nothing: ONNX Runtime loads it and runs nodes by their function bodies."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    source, library = folder / "empty.c", folder / "libempty.so"
    source.write_text("void *RegisterCustomOps(void *options, const void *api) { (void)options; (void)api; return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save_text(tmp_path_factory.mktemp("text") / "text.txt"))


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.save_gpt2(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> CompressedModel:
    """A small random Llama of a context of 64 tokens, packed."""
    import language_models

    return language_models.compressed(tmp_path_factory.mktemp("language"), "llama")


@pytest.fixture(scope="session")
def fused_folder(language_model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model exported with a cache in place; copy it before changing it."""
    from edgecomp.exporters import export

    folder = tmp_path_factory.mktemp("exported") / "fused"
    export(language_model, "onnx", folder)
    return folder


@pytest.fixture(scope="session")
def portable_folder(language_model: CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of standard operators, whose cache is a new one at every call."""
    from edgecomp.exporters import ExportOptions, export

    folder = tmp_path_factory.mktemp("exported") / "portable"
    export(language_model, "onnx", folder, options=ExportOptions(attention="portable"))
    return folder


@pytest.fixture(scope="session")
def tied_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `executorch_programs.tied_model`; copy it before damaging it."""
    import executorch_programs

    return executorch_programs.save_tied(tmp_path_factory.mktemp("tied"))


@pytest.fixture(scope="session")
def external_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its constants in a file beside."""
    import executorch_programs

    return executorch_programs.save_tied(tmp_path_factory.mktemp("external"), external=True)


@pytest.fixture
def crashing_library(tmp_path: Path) -> Path:
    """Stands for a runtime with a fault: it ends the process when it is loaded."""
    compiler = shutil.which("cc")
    assert compiler is not None
    source = tmp_path / "crash.c"
    source.write_text("#include <stdlib.h>\n__attribute__((constructor)) static void end(void) { abort(); }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / "crash.so"), str(source)], check=True)
    return tmp_path / "crash.so"
