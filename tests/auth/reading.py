"""Reading what was counted."""

from prometheus_client.parser import text_string_to_metric_families

from mailgate.edge.telemetry import Telemetry


def metric(telemetry: Telemetry, name: str, **labels: str) -> float:
    """The value of a sample; 0 if there is none."""
    for family in text_string_to_metric_families(telemetry.exposition()[1].decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0
