"""`python -m zhuyi`, which `torchrun -m zhuyi` needs."""

from zhuyi.cli import main

if __name__ == "__main__":
    main()
