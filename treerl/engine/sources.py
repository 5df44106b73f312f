"""Where each recipe comes from: what is listed of them before torch is imported."""

SOURCES = {
    "treerl": "docs/studies/treerl.md",
    "treegrpo": "arXiv 2512.08153",
    "treegrpo-code": "the released configuration of arXiv 2512.08153",
    "branchgrpo": "arXiv 2509.06040",
    "branchgrpo-pruned": "arXiv 2509.06040, pruned by depth",
    "ddpo": "arXiv 2305.13301",
    "flowgrpo": "arXiv 2505.05470",
    "dancegrpo": "arXiv 2505.07818",
    "mixgrpo": "arXiv 2507.21802",
    "grpo-guard": "arXiv 2510.22319",
    "flow-dppo": "arXiv 2606.11025",
    "stepwise": "arXiv 2603.28718",
    "flowgrpo-fast": "the released Flow-GRPO-Fast of arXiv 2505.05470",
    "tempflow": "arXiv 2508.04324",
    "g2rpo": "arXiv 2510.01982",
    "flash-grpo": "arXiv 2605.15980",
    "nft": "arXiv 2509.16117",
    "awm": "arXiv 2509.25050",
}
