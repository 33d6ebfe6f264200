"""arch fits GARCH(1,1) to rolling windows, one at a time.

Run by `var_garch.py`: RETURNS.npy OUT.npz WINDOW FIRST STEP. Fits windows FIRST, FIRST + STEP, and so on, each from
arch's own starting values; a row is mean, omega, alpha, beta, log-likelihood and the variance of the day after.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version

import numpy as np
from arch import arch_model


def fitted(returns: np.ndarray) -> tuple[float, ...]:
    model = arch_model(returns, mean="Constant", p=1, o=0, q=1, rescale=False)
    found = model.fit(disp="off", show_warning=False)
    mu, omega, alpha, beta = np.asarray(found.params)
    last = float(np.asarray(found.conditional_volatility)[-1]) ** 2
    following = omega + alpha * (returns[-1] - mu) ** 2 + beta * last
    return mu, omega, alpha, beta, found.loglikelihood, following


def main() -> None:
    file, out = sys.argv[1], sys.argv[2]
    window, first, step = (int(word) for word in sys.argv[3:6])
    windows = np.lib.stride_tricks.sliding_window_view(np.load(file), window)[first::step]
    fitted(windows[0])  # what is compiled at the first call
    start = time.process_time()
    fits = [fitted(one) for one in windows]
    np.savez(out, fits=fits, seconds=time.process_time() - start, name=f"arch {version('arch')}")


if __name__ == "__main__":
    main()
