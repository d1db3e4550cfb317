"""`train` is the first subgraph: tflite-runtime 2.14 delegates the first one only."""

from __future__ import annotations

from edgefl_converters.flatbuffer.object_form import text_of
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.passes.base import register_pass

__all__ = ["make_train_primary"]

_PRIMARY = "train"
_SUBGRAPH_FIELDS = [f"{role}SubgraphIndex" for role in ("init", "then", "else", "cond", "body")]


@register_pass("primary_signature", after="repeated_outputs", required=True)
def make_train_primary(context: PassContext) -> None:
    """Lets the subgraph of `train` change places with the first one."""
    model, subgraphs = context.file.model, context.file.subgraphs
    index = next(each.subgraphIndex for each in model.signatureDefs if text_of(each.signatureKey) == _PRIMARY)
    moved = {0: index, index: 0}
    subgraphs[0], subgraphs[index] = subgraphs[index], subgraphs[0]
    for each in model.signatureDefs:
        each.subgraphIndex = moved.get(each.subgraphIndex, each.subgraphIndex)
    for subgraph in subgraphs:
        for operator in subgraph.operators:
            for field in _SUBGRAPH_FIELDS:
                called = getattr(operator.builtinOptions, field, None)
                if called is not None:
                    setattr(operator.builtinOptions, field, moved.get(called, called))
