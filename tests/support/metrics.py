"""What `/metrics` says, as Prometheus reads it."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

Samples = dict[str, float]
"""Each sample by its name and labels, as `name{label="value"}`, with the labels in order."""


def samples_of(text: str) -> Samples:
    """Returns the samples of a response."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scraped(app: ASGIApp, path: str = "/") -> Samples:
    """Returns the samples that an application responds with."""
    return samples_of(await scraped_text(app, path))


async def scraped_text(app: ASGIApp, path: str = "/") -> str:
    """Returns the text that an application responds with."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://metrics") as client:
        response = await client.get(path)
    assert response.status_code == 200, response.text
    return response.text
