"""Which library of operators runs with an artifact."""

from __future__ import annotations

from pathlib import Path

from edgecomp.errors import RuntimeUnavailableError
from edgecomp.exported.executorch_file import ExecutorchFile
from edgecomp.exported.onnx_file import OnnxFile

AUTO, NONE = "auto", "none"


def resolve_library(choice: str, artifact: OnnxFile | ExecutorchFile) -> Path | None:
    """The library to load into the artifact's runtime.

    Args:
        choice: `auto` (ours, where the artifact calls operators of ours), `none`, or a path.
        artifact: the model that will run.

    Raises:
        RuntimeUnavailableError: the library is not there, or is needed and not wanted.

    """
    if choice == NONE and isinstance(artifact, ExecutorchFile) and artifact.uses_edgecomp:
        raise RuntimeUnavailableError(
            f"{artifact.path} calls operators of edgecomp ({', '.join(artifact.own_operators)}), which our library registers: "
            'load it by torch.ops.load_library(edgecomp.get_library_path("executorch")), or leave out --library none'
        )
    if choice == NONE and isinstance(artifact, OnnxFile) and artifact.needs_library:
        raise RuntimeUnavailableError(
            f"{artifact.path} calls {', '.join(artifact.own_operators)} of edgecomp without their functions, as models do that "
            "ONNX Runtime optimised with our library registered: leave out --library none"
        )
    if choice == NONE or (choice == AUTO and not artifact.uses_edgecomp):
        return None
    if choice == AUTO:
        from edgecomp.native import get_library_path

        return Path(get_library_path("executorch" if isinstance(artifact, ExecutorchFile) else "onnxruntime"))
    path = Path(choice)
    if not path.is_file():
        raise RuntimeUnavailableError(f"no library of operators at {path}: give `auto`, `none`, or the path of a library")
    return path.absolute()
