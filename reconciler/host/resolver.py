"""Names for the numbers in events: identities, addresses, cookies, by the applied commit."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from reconciler.compile.cookies import RuleInfo
from reconciler.host.target import Target
from reconciler.model.labels import LabelSet


class TargetResolver:
    """As `observe.flow_text.Resolver` wants it. Of one target: make a new one when another commit is applied."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._workloads = {
            address: endpoint.reference
            for endpoint in target.facts.endpoints.values()
            for address in (endpoint.address4, endpoint.address6)
            if address is not None
        }

    def labels(self, identity: int) -> LabelSet | None:
        of_host = self._target.desired.identities.get(identity)
        return of_host or self._target.facts.identities.get(identity)

    def workload(self, address: IPv4Address | IPv6Address) -> str:
        return self._workloads.get(address, "")

    def rule(self, cookie: int) -> RuleInfo | None:
        return self._target.desired.rules.get(cookie)
