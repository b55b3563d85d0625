"""Ray's node provider for AWS, which starts an on-demand node where AWS has no spot node.

Ray 2.60 does not fall back by itself. If AWS refuses a launch, Ray requests the same type again
without end; its autoscaler tries another type only if a node was granted and did not start.
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
"""AWS's error codes for "no spot node now". Every other code is an error and is raised."""


class SpotFirst(AWSNodeProvider):
    """The external provider that cluster.yaml names; everything else is Ray's own."""

    def create_node(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int
    ) -> dict[str, Any]:
        """Start up to `count` instances: spot if the node type asks for it, else on demand.

        Returns:
            The instances by id.

        Raises:
            NodeLaunchException: AWS refused for another reason than a lack of spot capacity.
        """
        try:
            return super().create_node(node_config, tags, count)
        except NodeLaunchException as refusal:
            if "InstanceMarketOptions" not in node_config or refusal.category not in NO_SPOT:
                raise
            log.warning("no spot node (%s): starting one on demand", refusal.category)
            on_demand = {k: v for k, v in node_config.items() if k != "InstanceMarketOptions"}
            return super().create_node(on_demand, tags, count)
