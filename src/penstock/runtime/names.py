"""Names of flow runs: two random words."""

from __future__ import annotations

from random import choice

_FIRST = (
    "able amber bold brave bright brisk calm clear clever cosy crisp curious deft eager early "
    "fair fleet fond frank fresh gentle glad golden grand happy hardy honest humble jolly keen "
    "kind lively lucid lucky mellow merry mild modest neat nimble noble patient placid plucky "
    "polite prompt proud quick quiet rapid ready rosy sage serene sharp silent sleek smart smooth "
    "snug sober solid spry steady stout sunny swift tidy tranquil true trusty vivid warm wise witty"
).split()
_SECOND = (
    "alder badger beaver birch bison brook canyon cedar cliff clover condor coral cove crane creek "
    "curlew delta dingo dolphin dune eagle egret falcon fern finch fjord fox geyser glacier gorge "
    "grouse gull harbor hare hawk heron ibis jay juniper kestrel lagoon lake lark linden lynx "
    "maple marten meadow mink moose newt oak orca osprey otter owl pebble pelican petrel pike pine "
    "plover puffin quail rapids raven reef ridge river robin salmon seal sparrow spruce stoat "
    "stork stream swan tapir tern thrush trout tundra valley vole walnut weasel willow wren"
).split()


def random_name() -> str:
    """Make a name such as "brave-otter"."""
    return f"{choice(_FIRST)}-{choice(_SECOND)}"
