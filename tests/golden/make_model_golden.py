"""Makes tests/fixtures/models: small random checkpoints of every supported architecture and what the reference answers on them.

Run by hand, never by the tests:
    python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==5.23.0
    VENV/bin/python tests/golden/make_model_golden.py [NAME...]
"""

import torch
import transformers

from families import composites, dense, encoders, experts, gemma, irregular, old, states


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for family in (dense, irregular, old, gemma, composites, experts, states, encoders):
        family.make_all()


if __name__ == "__main__":
    main()
