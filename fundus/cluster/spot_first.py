"""Ray's node provider for AWS, with an on-demand node wherever AWS has no spot node to give.

Ray 2.60 alone does not fall back: a launch that AWS refuses is asked for again, as the same type,
for ever (its autoscaler turns to another type only after a node was given and did not start).
"""

import logging
from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException

log = logging.getLogger(__name__)

NO_SPOT = frozenset(
    {
        "InsufficientInstanceCapacity",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
    }
)
"""AWS's words for: not as a spot node, not now. Every other refusal is a fault and stays one."""


class SpotFirst(AWSNodeProvider):
    """Named in cluster.yaml as the external provider; all else is Ray's own."""

    def create_node(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int
    ) -> dict[str, Any]:
        """Up to `count` instances by id: spot where the node type says so, else on demand."""
        try:
            return super().create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if "InstanceMarketOptions" not in node_config or refusal.category not in NO_SPOT:
                raise
            log.warning("no spot node (%s): on demand instead", refusal.category)
            kept = {k: v for k, v in node_config.items() if k != "InstanceMarketOptions"}
            return super().create_node(kept, tags, count)
