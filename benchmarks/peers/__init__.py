"""torchbands beside other toolkits: same victim, same inputs, same settings, one thread, one run.

    python -m benchmarks.peers            # installs the peers, builds the victim, measures, writes receipts/peers.json

Every tool has one runner, `run_<tool>.py`, which is a program: `python -m benchmarks.peers.run_<tool> EXCHANGE WORK`
prints one JSON line (see `contract.Result`). A tool whose runner does not exist is left out. `work.json` states the
work, once, for all tools; `exchange.py` states what is handed to them.
"""
