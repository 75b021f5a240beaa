"""List prices found after the gathered table, in its columns; tools/import_facts.py adds them to data/prices.toml."""

from __future__ import annotations

_EC2 = {
    "title": "Amazon EC2 On-Demand Pricing: Instance Families, Regional Multipliers (2026)", "date": "2026-06-17",
    "url": "https://main.d1m6t5n8e4tvia.amplifyapp.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/",
    "locator": "key takeaways: Linux, us-east-1, a g5.xlarge, which has one A10G", "kind": "documentation",
}  # fmt: skip
_AMD = {
    "title": "Cliff Center: AMD inference economics", "date": "2026-05-18",
    "url": "https://www.cliffcenter.com/research/amd-inference-economics", "locator": "the surface claim",
    "kind": "documentation",
}  # fmt: skip
# accelerator, provider, USD a GPU and hour, source
MORE_PRICES = (
    ("A10G", "AWS g5.xlarge us-east-1", 1.006, _EC2),
    ("MI325X", "TensorWave", 1.95, _AMD),
    ("MI300X", "TensorWave", 1.5, _AMD),
)
