"""GARCH(1,1) and GJR-GARCH(1,1) refitted in every rolling window, all windows at once.

What is notable: the likelihood recursion runs over time once for a whole block of windows, carrying the exact gradient
and the expected information (Fisher scoring; Fiorentini, Calzolari and Panattoni 1996, section 2) along. Each step is
Levenberg-damped and accepted window by window; a window that has converged leaves the block. Layout is time-major, so
that each step of the recursion reads one contiguous row.

The model is that of `arch_model(r, mean="Constant", p=1, o=0 or 1, q=1)`, its backcast and its constraints included;
the likelihoods are therefore comparable. arch's bounds on the variance (1e-6 and 1e6 times an EWMA) are not applied:
where a fitted path would touch them, the likelihood differs. It does NOT cover other distributions than the normal
(quasi maximum likelihood), other orders, or standard errors: see `garch`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCK = 1024  # windows carried together: one row of 8 kB per parameter stays in the first-level cache
LOG_EVERY = 16  # variances multiplied before one logarithm is taken; far from over- and underflow for percent returns
TOLERANCE = 1e-7  # predicted gain of log-likelihood at which a window has converged
MAX_ITERATIONS = 200
SCORING = 3
PIN, FLOOR = -7.0, -20.0
BACKCAST_DAYS, BACKCAST_DECAY = 75, 0.94  # as in arch
# where the search may begin: (news, persistence); the best of them by likelihood, for each window
STARTS = ((0.03, 0.97), (0.05, 0.98), (0.1, 0.98), (0.1, 0.9), (0.2, 0.95), (0.05, 0.8))
MAX_STEP = 3.0  # of an unconstrained parameter (log scale) in one iteration


@dataclass(frozen=True, slots=True)
class WindowFits:
    """Fitted parameters of every window; each array is `(N,)`, window n being `returns[n : n + window]`.

    Variances are in squared units of the returns that were given. `next_variance[n]` is the forecast for the day after
    window n. `gamma` is the surplus of a negative return (0 for a symmetric model). `converged` is False where the
    search was stopped by `MAX_ITERATIONS`.
    """

    window: int
    mu: Array
    omega: Array
    alpha: Array
    gamma: Array
    beta: Array
    loglikelihood: Array
    next_variance: Array
    converged: npt.NDArray[np.bool_]
    iterations: int


def backcast(squares: Array) -> Array:
    """Return the variance before the first day from squared residuals `(T, ...)`, as arch's `backcast` does."""
    days = min(BACKCAST_DAYS, len(squares))
    weights = BACKCAST_DECAY ** np.arange(days)
    return np.asarray(np.tensordot(weights / weights.sum(), squares[:days], axes=1))


def fit_windows(returns: Array, window: int, *, asymmetric: bool = False, block: int = BLOCK) -> WindowFits:
    """Fit the model in each window of `window` successive returns.

    Parameters
    ----------
    returns : `(T,)` finite; in percent for daily data (the scale on which the starting values are sensible).
    window : observations in each window. asymmetric : GJR instead of GARCH.

    Raises
    ------
    ValueError : where there are fewer returns than one window, or a window holds no variation.
    """
    returns = np.ascontiguousarray(returns, dtype=np.float64)
    if returns.ndim != 1 or len(returns) < window or window < 10:
        raise ValueError(f"{returns.shape} returns do not hold a window of {window} (at least 10)")
    rows = np.lib.stride_tricks.sliding_window_view(returns, len(returns) - window + 1)  # (T, N), nothing copied
    parts = [_fit_block(rows[:, at : at + block], asymmetric) for at in range(0, rows.shape[1], block)]
    natural, loglik, following, converged = (np.concatenate(one, axis=-1) for one in list(zip(*parts, strict=True))[:4])
    mu, omega, plus, minus, beta = natural
    return WindowFits(
        window, mu, omega, plus, minus - plus, beta, loglik, following, converged, max(p[4] for p in parts)
    )


def _natural(x: Array, asymmetric: bool) -> tuple[Array, Array]:
    """Map unconstrained `x` `(k, N)` to (mu, omega, alpha+, alpha-, beta) and the weights of the softmax.

    `x` is mu, log omega and logits against the rest `1 - persistence`: so news and memory are positive and the
    persistence `(alpha+ + alpha-) / 2 + beta` stays below 1.
    """
    logits = np.exp(x[2:] - np.maximum(x[2:].max(axis=0), 0.0))
    rest = np.exp(-np.maximum(x[2:].max(axis=0), 0.0))
    weights = logits / (logits.sum(axis=0) + rest)
    if asymmetric:
        plus, minus, beta = 2 * weights[0], 2 * weights[1], weights[2]
    else:
        plus, minus, beta = weights[0], weights[0], weights[1]
    return np.stack([x[0], np.exp(x[1]), plus, minus, beta]), weights


def _jacobian(natural: Array, weights: Array, asymmetric: bool) -> Array:
    """Derivative of the free natural parameters by `x`, `(N, k, k)`; rows are natural parameters."""
    k, n = len(weights) + 2, weights.shape[1]
    jacobian = np.zeros((n, k, k))
    jacobian[:, 0, 0] = 1.0
    jacobian[:, 1, 1] = natural[1]
    inner = -weights.T[:, :, None] * weights.T[:, None, :]
    diagonal = np.arange(len(weights))
    inner[:, diagonal, diagonal] += weights.T
    if asymmetric:
        inner[:, :2] *= 2.0
    jacobian[:, 2:, 2:] = inner
    return jacobian


def _loglikelihood(rows: Array, natural: Array, before: Array) -> Array:
    """Log-likelihood alone, `(N,)`: what the choice of the start needs."""
    mu, omega, plus, minus, beta = natural
    same = plus is minus or np.array_equal(plus, minus)
    h = omega + ((plus + minus) / 2 + beta) * before
    total, product, squares = np.zeros_like(mu), np.ones_like(mu), np.zeros_like(mu)
    for t, row in enumerate(rows):
        e = row - mu
        e2 = e * e
        squares += e2 / h
        product *= h
        if t % LOG_EVERY == LOG_EVERY - 1:
            total += np.log(product)
            product[:] = 1.0
        h = omega + (plus if same else np.where(e < 0, minus, plus)) * e2 + beta * h
    return -0.5 * (len(rows) * np.log(2 * np.pi) + total + np.log(product) + squares)


def _surprise(
    d: Array, e: Array, e2: Array, plus: Array, minus: Array | None, *, gain: Array, slope: Array, scratch: Array
) -> None:
    """Add to the derivative `d` what the day's surprise moves, and write what the variance gains by it into `gain`.

    `minus` : alpha of a fall where there is one of its own. `slope` and `scratch` are overwritten.
    """
    if minus is None:
        d[2] += e2
        np.multiply(plus, e, out=slope)
    else:
        down = e < 0
        np.multiply(e2, down, out=scratch)
        d[3] += scratch
        np.subtract(e2, scratch, out=scratch)
        d[2] += scratch
        np.copyto(slope, plus)
        np.copyto(slope, minus, where=down)
        np.multiply(slope, e, out=slope)
    np.multiply(slope, -2.0, out=scratch)
    d[0] += scratch
    np.multiply(slope, e, out=gain)


def _score(rows: Array, natural: Array, before: Array, asymmetric: bool) -> tuple[Array, Array, Array, Array]:
    """Log-likelihood `(N,)`, gradient `(k, N)`, expected information `(N, k, k)` and the next day's variance `(N,)`.

    In the natural parameters mu, omega, alpha (or alpha+ and alpha-) and beta; k is 4 or 5.
    """
    mu, omega, plus, minus, beta = natural
    k, n = (5, len(mu)) if asymmetric else (4, len(mu))
    h = omega + ((plus + minus) / 2 + beta) * before
    d = np.zeros((k, n))  # derivative of h
    d[1] = 1.0
    if asymmetric:
        d[2] = d[3] = before / 2
    else:
        d[2] = before
    d[-1] = before
    w, gradient, scratch = np.empty((k, n)), np.zeros((k, n)), np.empty((k, n))
    pairs = np.zeros((k * (k + 1) // 2, n))
    products = np.empty_like(pairs)
    mean_gradient, mean_information = np.zeros(n), np.zeros(n)
    total, product, squares = np.zeros(n), np.ones(n), np.zeros(n)
    e, e2, inverse, z2, one, news = (np.empty(n) for _ in range(6))
    for t, row in enumerate(rows):
        np.subtract(row, mu, out=e)
        np.multiply(e, e, out=e2)
        np.divide(1.0, h, out=inverse)
        np.multiply(e2, inverse, out=z2)
        np.multiply(d, inverse, out=w)
        np.add(squares, z2, out=squares)
        np.subtract(z2, 1.0, out=z2)
        np.multiply(w, z2, out=scratch)
        np.add(gradient, scratch, out=gradient)
        np.add(mean_information, inverse, out=mean_information)
        np.multiply(e, inverse, out=one)
        np.add(mean_gradient, one, out=mean_gradient)
        at = 0
        for i in range(k):
            np.multiply(w[i], w[i:], out=products[at : at + k - i])
            at += k - i
        np.add(pairs, products, out=pairs)
        np.multiply(product, h, out=product)
        if t % LOG_EVERY == LOG_EVERY - 1:
            total += np.log(product)
            product[:] = 1.0
        # on to the next day: d <- beta d + (what the parameters multiply)
        np.multiply(d, beta, out=d)
        d[1] += 1.0
        d[-1] += h
        np.multiply(h, beta, out=h)
        _surprise(d, e, e2, plus, minus if asymmetric else None, gain=one, slope=news, scratch=z2)
        np.add(h, one, out=h)
        np.add(h, omega, out=h)
    loglik = -0.5 * (len(rows) * np.log(2 * np.pi) + total + np.log(product) + squares)
    gradient *= 0.5
    gradient[0] += mean_gradient
    information = np.empty((n, k, k))
    upper = np.triu_indices(k)
    information[:, upper[0], upper[1]] = information[:, upper[1], upper[0]] = 0.5 * pairs.T
    information[:, 0, 0] += mean_information
    return loglik, gradient, information, h


def _fit_block(rows: Array, asymmetric: bool) -> tuple[Array, Array, Array, npt.NDArray[np.bool_], int]:
    n = rows.shape[1]
    mean = rows.mean(axis=0)
    before = backcast((rows[:BACKCAST_DAYS] - mean) ** 2)
    variance = rows.var(axis=0)
    if not (variance > 0).all():
        raise ValueError("a window holds no variation: all its returns are equal")
    x = _start(rows, mean, variance, before, asymmetric)
    best_x, best, following = x.copy(), np.full(n, -np.inf), np.empty(n)
    converged = np.zeros(n, dtype=bool)
    # what each active window carries from one iteration to the next
    active, data, damping = np.arange(n), np.ascontiguousarray(rows), np.full(n, 1e-3)
    k = len(x)
    gradient, hessian, step = np.zeros((k, n)), np.zeros((n, k, k)), np.zeros((k, n))
    iteration = 0
    while len(active) and iteration < MAX_ITERATIONS:
        iteration += 1
        natural, weights = _natural(x, asymmetric)
        loglik, slope, information, ahead = _score(data, natural, before, asymmetric)
        better = loglik > best[active]  # False for a NaN as well
        found = active[better]
        best[found], best_x[:, found], following[found] = loglik[better], x[:, better], ahead[better]
        jacobian = _jacobian(natural, weights, asymmetric)
        new_gradient = np.einsum("nij,in->jn", jacobian, slope)
        if iteration <= SCORING:
            new_hessian = np.swapaxes(jacobian, 1, 2) @ information @ jacobian
            hessian[better] = new_hessian[better]
        else:
            hessian = _secant(hessian, step, gradient - new_gradient)
        gradient[:, better] = new_gradient[:, better]
        damping = np.where(better, np.maximum(damping * 0.2, 1e-9), damping * 8.0)
        step, gain = _step(best_x[:, active], gradient, hessian, damping)
        done = (gain < TOLERANCE) | (damping > 1e8)
        converged[active[done]] = True
        x = best_x[:, active] + step
        if done.any():
            keep = ~done
            active, data, before = active[keep], data[:, keep], before[keep]
            x, damping, gradient, hessian, step = (
                x[:, keep],
                damping[keep],
                gradient[:, keep],
                hessian[keep],
                step[:, keep],
            )
    natural, _ = _natural(best_x, asymmetric)
    return natural, best, following, converged, iteration


def _secant(hessian: Array, step: Array, change: Array) -> Array:
    """The BFGS update `(N, k, k)` from a step and the change of the slope over it, where it curves rightly."""
    moved = np.einsum("nij,jn->in", hessian, step)
    curvature, before = (step * change).sum(axis=0), (step * moved).sum(axis=0)
    usable = (curvature > 1e-8 * before) & np.isfinite(curvature) & (before > 0)
    change, moved = np.where(usable, change, 0.0), np.where(usable, moved, 0.0)
    gained = change / np.where(usable, curvature, 1.0)
    lost = moved / np.where(usable, before, 1.0)
    return hessian + np.einsum("in,jn->nij", change, gained) - np.einsum("in,jn->nij", moved, lost)


def _step(x: Array, gradient: Array, hessian: Array, damping: Array) -> tuple[Array, Array]:
    """The damped step `(k, N)` and the gain of log-likelihood that the quadratic model promises for it.

    A weight that has become negligible and still shrinks is pinned: on the log scale it would go on for ever.
    """
    k = len(gradient)
    pinned = (gradient < 0) & (x < PIN)
    pinned[:2] = False
    free = ~pinned
    slope = np.where(free, gradient, 0.0)
    damped = np.where((free[:, None] & free[None, :]).transpose(2, 0, 1), hessian, 0.0)
    diagonal = np.arange(k)
    damped[:, diagonal, diagonal] += damping[:, None] * (damped[:, diagonal, diagonal] + 1e-9) + 1e-12 + pinned.T
    step = np.linalg.solve(damped, slope.T[:, :, None])[:, :, 0].T
    size = np.abs(step[1:]).max(axis=0)
    step *= np.minimum(1.0, MAX_STEP / np.maximum(size, 1e-300))
    gain = np.einsum("kn,kn->n", slope, step)
    return np.where(pinned, FLOOR - x, step), gain


def _start(rows: Array, mean: Array, variance: Array, before: Array, asymmetric: bool) -> Array:
    best, chosen = np.full(len(mean), -np.inf), np.zeros((5 if asymmetric else 4, len(mean)))
    for news, persistence in STARTS:
        memory, rest = persistence - news, 1.0 - persistence
        logits = [news / 2, news / 2, memory] if asymmetric else [news, memory]
        logits = [part / rest for part in logits]
        x = np.stack([mean, np.log(rest * variance), *(np.full_like(mean, np.log(part)) for part in logits)])
        loglik = _loglikelihood(rows, _natural(x, asymmetric)[0], before)
        better = loglik > best
        best[better], chosen[:, better] = loglik[better], x[:, better]
    return chosen
