"""Writes what C, C++ and the documents say of the operators, from edgecomp/ops.py.

    python runtimes/ops/generate.py            # write
    python runtimes/ops/generate.py --check    # exit code 1 where a file is not what would be written

| file | contents |
| --- | --- |
| `runtimes/include/edgecomp/op_enums.h` | enumerations of the C interface: element types, attributes that are choices |
| `runtimes/ops/op_table.h`, `op_table.cpp` | numbers of inputs and attributes, schemas for adapters, the list of operators |
| `edgecomp/operators.md` | the operators for readers |

Needs the standard library only.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_ORIGIN = "Generated from edgecomp/ops.py by runtimes/ops/generate.py: change that, and run this."


def load_table(path: Path) -> ModuleType:
    """The module edgecomp/ops.py of a checkout, without importing the package."""
    spec = importlib.util.spec_from_file_location("edgecomp_ops_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def generated(table: ModuleType) -> dict[str, str]:
    """The text of every generated file, by its path in the checkout."""
    return {
        "runtimes/include/edgecomp/op_enums.h": _enums(table),
        "runtimes/ops/op_table.h": _header(table),
        "runtimes/ops/op_table.cpp": _source(table),
        "edgecomp/operators.md": _document(table),
    }


def _camel(name: str) -> str:
    """`tile_book` -> `TileBook`, `kernel_shape` -> `KernelShape`, `N` -> `N`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _constants(names: list[str], count: str) -> str:
    return ", ".join([*(f"k{_camel(name)}" for name in names), count])


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


def _formats(table: ModuleType) -> dict[str, Any]:
    return {operator.factor.format: operator.factor for operator in table.OPERATORS.values()}


def _choices(table: ModuleType) -> dict[str, tuple[str, ...]]:
    """The strings of every attribute that is a choice; one name has one set in all operators."""
    choices: dict[str, tuple[str, ...]] = {}
    for operator in table.OPERATORS.values():
        for attribute in operator.attributes:
            if attribute.type == "string" and choices.setdefault(attribute.name, attribute.choices) != attribute.choices:
                raise ValueError(f"{attribute.name} must have the same choices in every operator, got others in {operator.name}")
    return choices


def _c_enum(name: str, prefix: str, members: list[str]) -> Iterator[str]:
    yield f"typedef enum {name} {{"
    yield from (f"  {prefix}_{member.upper()} = {value}," for value, member in enumerate(members))
    yield f"}} {name};"


def _enums(table: ModuleType) -> str:
    lines = [
        f"/* {_ORIGIN} */",
        "/* clang-format off */",
        "#ifndef EDGECOMP_OP_ENUMS_H_",
        "#define EDGECOMP_OP_ENUMS_H_",
        "",
        "/* Element types of tensors. */",
        *_c_enum("ec_type", "EC_TYPE", ["none", *table.DTYPES, "other"]),
    ]
    for name, choices in _choices(table).items():
        lines += ["", f"/* The attribute `{name}`. */", *_c_enum(f"ec_{name}", f"EC_{name.upper()}", list(choices))]
    return "\n".join([*lines, "", "#endif /* EDGECOMP_OP_ENUMS_H_ */", ""])


def _header(table: ModuleType) -> str:
    lines = [
        f"// {_ORIGIN}",
        "// clang-format off",
        "#ifndef EDGECOMP_OPS_OP_TABLE_H_",
        "#define EDGECOMP_OPS_OP_TABLE_H_",
        "",
        '#include "ops/op.h"',
        "",
        "namespace edgecomp {",
        "",
        "// Arrays of each format, as OpCall::array counts them, and its attributes, which come first in every operator.",
    ]
    for name, factor in _formats(table).items():
        lines += [
            f"namespace {name} {{",
            f"enum : size_t {{ {_constants([a.name for a in factor.arrays], 'kArrays')} }};",
            f"enum : size_t {{ {_constants([a.name for a in factor.attributes], 'kAttributes')} }};",
            f"}}  // namespace {name}",
            "",
        ]
    lines.append("// Inputs and attributes of each operator.")
    for name, operator in table.OPERATORS.items():
        lines += [
            f"namespace {name} {{",
            f"enum : size_t {{ {_constants([i.name for i in operator.inputs], 'kInputs')} }};",
            f"enum : size_t {{ {_constants([a.name for a in operator.attributes], 'kAttributes')} }};",
            "extern const OpSchema kSchema;",
            f"}}  // namespace {name}",
            "",
        ]
    lines.append("// What the operators do: each is defined beside its format's binder.")
    lines += [f"extern const Op k{operator.onnx_name};" for operator in table.OPERATORS.values()]
    lines += ["", f"constexpr size_t kOpCount = {len(table.OPERATORS)};"]
    return "\n".join([*lines, "", "}  // namespace edgecomp", "", "#endif  // EDGECOMP_OPS_OP_TABLE_H_", ""])


def _source(table: ModuleType) -> str:
    lines = [f"// {_ORIGIN}", "// clang-format off", '#include "ops/op_table.h"', "", "namespace edgecomp {", "namespace {", ""]
    for name, choices in _choices(table).items():
        lines.append(f"constexpr const char* k{_camel(name)}Choices[] = {{{_quoted(choices)}}};")
    lines += ["", "}  // namespace", ""]
    for name, operator in table.OPERATORS.items():
        variants = [*(f'"{variant}"' for variant in operator.executorch_names), "nullptr"][:2]
        factor, in_place = operator.factor.format, f"k{_camel(operator.in_place)}" if operator.in_place else "kInputs"
        lines += [f"namespace {name} {{", "constexpr InputSchema kInputSchemas[] = {"]
        for declared in operator.inputs:
            optional = "true" if declared.optional else "false"
            lines.append(f'    {{"{declared.name}", EC_TYPE_{declared.dtype.upper()}, {optional}, "{declared.shape}"}},')
        lines += ["};", "constexpr AttributeSchema kAttributeSchemas[] = {"]
        lines += [f"    {_attribute(attribute)}," for attribute in operator.attributes]
        lines += [
            "};",
            f'const OpSchema kSchema = {{"{name}", "{operator.onnx_name}", {", ".join(variants)}, kInputSchemas, kInputs, '
            f"{factor}::kArrays, kAttributeSchemas, kAttributes, {factor}::kAttributes, EC_TYPE_{operator.output.dtype.upper()}, "
            f"{in_place}}};",
            "static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);",
            *(f"static_assert({declared.count} <= kMaxInts);" for declared in operator.attributes if declared.type == "ints"),
            f"}}  // namespace {name}",
            "",
        ]
    types = "\n".join(f'    case EC_TYPE_{dtype.upper()}:\n      return "{dtype}";' for dtype in table.DTYPES)
    ops = "\n".join(f"    &k{operator.onnx_name}," for operator in table.OPERATORS.values())
    lines += [
        "const char* TypeName(ec_type type) {",
        "  switch (type) {",
        types,
        "    case EC_TYPE_NONE:",
        '      return "nothing";',
        "    case EC_TYPE_OTHER:",
        "      break;",
        "  }",
        '  return "another type";',
        "}",
        "",
        "OpList AllOps() {",
        f"  static constexpr const Op* kOps[kOpCount] = {{\n{ops}\n  }};",
        "  return {kOps, kOpCount};",
        "}",
    ]
    return "\n".join([*lines, "", "}  // namespace edgecomp", ""])


def _attribute(attribute: Any) -> str:
    match attribute.type:
        case "int":
            return f'{{"{attribute.name}", AttributeKind::kInt, 1, nullptr}}'
        case "ints":
            return f'{{"{attribute.name}", AttributeKind::kInts, {attribute.count}, nullptr}}'
        case "float":
            return f'{{"{attribute.name}", AttributeKind::kFloat, 1, nullptr}}'
        case _:
            return f'{{"{attribute.name}", AttributeKind::kChoice, {len(attribute.choices)}, k{_camel(attribute.name)}Choices}}'


def _document(table: ModuleType) -> str:
    lines = [
        "# The operators",
        "",
        f"{_ORIGIN} Formats are specified in `edgecomp/formats/*.md`, whose symbols shapes use. Every input has the place and type "
        "given here in every runtime, and every attribute is written on every node.",
    ]
    for name, operator in table.OPERATORS.items():
        lines += [
            "",
            f"## `{name}`",
            "",
            *(f"    {line}" for line in operator.meaning.splitlines()),
            "",
            f"ONNX `{table.DOMAIN}::{operator.onnx_name}`, PyTorch `{operator.torch_name}`, "
            f"ExecuTorch {' and '.join(f'`{variant}`' for variant in operator.executorch_names)}; "
            + (f"format [{operator.factor.format}](formats/{operator.factor.format}.md); " if operator.factor.arrays else "")
            + f"output `{operator.output.name}` {operator.output.dtype} `{operator.output.shape}`.",
            "",
            "| input | dtype | shape | |",
            "| --- | --- | --- | --- |",
        ]
        for declared in operator.inputs:
            optional = "may be absent" if declared.optional else ""
            lines.append(f"| `{declared.name}` | {declared.dtype} | `{declared.shape}` | {optional} |".replace("|  |", "| |"))
        lines += ["", "| attribute | type |", "| --- | --- |"]
        for attribute in operator.attributes:
            kind = {
                "int": "int",
                "float": "float32",
                "ints": f"{attribute.count} ints",
                "string": ", ".join(f"`{choice}`" for choice in attribute.choices),
            }[attribute.type]
            lines.append(f"| `{attribute.name}` | {kind} |")
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` say which differ."""
    stale = []
    for name, text in generated(load_table(ROOT / "edgecomp" / "ops.py")).items():
        path = ROOT / name
        if arguments == ["--check"]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    for name in stale:
        sys.stderr.write(f"{name} must be what edgecomp/ops.py says: run python runtimes/ops/generate.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
