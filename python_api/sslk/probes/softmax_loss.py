"""Cross-entropy of many softmax classifiers on shared rows, and the preconditioner that makes it easy to minimise."""

from __future__ import annotations

import torch
from torch import Tensor

COVARIANCE_ROWS = 20_000


class SoftmaxLoss:
    """Loss and gradient of G classifiers `[G, C, D + 1]` on rows `[N, D + 1]` whose last column is one.

    `f_g = sum_i w_gi CE(V_g x_i, y_i) + l2_g / 2 ||V_g[:, :-1]||^2` with weights `w_gi = mask_gi / |mask_g|`.

    Args:
        x: `[N, D + 1]`, standardised over all rows.
        targets: int64 `[N]` in [0, C).
        num_classes: C.
        l2: `[G]` or `[1]`.
        sample_masks: bool `[G, N]` or `[1, N]`.
        restandardize: the classifiers live in coordinates standardised over their own rows.
        logit_bytes: memory of one block of logits.
    """

    def __init__(
        self,
        x: Tensor,
        targets: Tensor,
        num_classes: int,
        l2: Tensor,
        sample_masks: Tensor,
        restandardize: bool,
        logit_bytes: int,
    ) -> None:
        self.x, self.targets, self.num_classes, self.l2 = x, targets, num_classes, l2
        self.logit_bytes = logit_bytes
        self.weights = sample_masks.to(x) / sample_masks.sum(1, keepdim=True)
        self.mean = self.scale = None
        if restandardize:
            self.mean = self.weights @ x[:, :-1]
            square = self.weights @ x[:, :-1].square()
            std = (square - self.mean.square()).clamp(min=0).sqrt()
            self.scale = torch.where(std > 1e-4, std, 1.0)

    def select(self, kept: Tensor) -> SoftmaxLoss:
        """The loss of some of the classifiers."""
        part = object.__new__(SoftmaxLoss)
        part.__dict__.update(self.__dict__)
        for name in ("l2", "weights", "mean", "scale"):
            value = getattr(self, name)
            setattr(part, name, value[kept] if value is not None and len(value) > 1 else value)
        return part

    def raw(self, position: Tensor) -> Tensor:
        """Classifiers for the rows of `x` from classifiers for rows standardised over each one's own samples."""
        if self.mean is None or self.scale is None:
            return position
        weight = position[..., :-1] / self.scale[:, None]
        bias = position[..., -1] - (weight * self.mean[:, None]).sum(-1)
        return torch.cat([weight, bias[..., None]], dim=-1)

    def begin(self, groups: int) -> Tensor:
        """The best constant classifiers `[G, C, D + 1]`: zero weights, and the logarithm of every class's share."""
        member = torch.nn.functional.one_hot(self.targets, self.num_classes).to(self.x)
        position = self.x.new_zeros(groups, self.num_classes, self.x.shape[1])
        # A class without rows would go to minus infinity, step by step; here nothing pulls it any more.
        position[..., -1] = (self.weights @ member).clamp(min=2e-9).log()
        return position

    def gap(self, position: Tensor, gradient: Tensor) -> Tensor:
        """Bound `[G]` on `f(V) - min f`, in nats.

        `f` is convex, and `l2`-strongly so in the weights: `f - f* <= ||dW||^2 / (2 l2) + <db, b - b*>`, whose first
        part is the duality gap of a classifier with optimal biases. Biases are not penalised; theirs are taken to move
        by no more than `1 + |b|`. Without a penalty only the second kind of bound is left, for weights too.
        """
        l2 = self.l2.double()
        moved = (gradient.abs() * (1 + position.abs())).double()
        weights = gradient[..., :-1].double().square().sum((1, 2)) / (2 * l2)
        return torch.where(l2 > 0, weights, moved[..., :-1].sum((1, 2))) + moved[..., -1].sum(1)

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Loss `[G]` and gradient `[G, C, D + 1]` at `position`."""
        groups, classes, width = position.shape
        flat = self.raw(position).reshape(groups * classes, width)
        loss = position.new_zeros(groups, dtype=torch.float64)
        gradient = torch.zeros_like(flat)
        rows = max(1, self.logit_bytes // (flat.itemsize * groups * classes))
        for start in range(0, len(self.x), rows):
            x, y = self.x[start : start + rows], self.targets[start : start + rows]
            weights = self.weights[:, start : start + rows]
            # Rows last: the softmax over the few classes then runs along contiguous memory.
            logits = (flat @ x.T).view(groups, classes, len(x))
            log_probability = logits.log_softmax(dim=1)
            index = y.expand(groups, 1, -1)
            loss -= (log_probability.gather(1, index).squeeze(1) * weights).sum(1, dtype=torch.float64)
            error = log_probability.exp_()
            error.scatter_add_(1, index, error.new_full((1, 1, 1), -1.0).expand_as(index))
            error *= weights[:, None]
            gradient.addmm_(error.view(groups * classes, len(x)), x)
        gradient = gradient.view(groups, classes, width)
        if self.mean is not None and self.scale is not None:
            gradient[..., :-1] = (gradient[..., :-1] - gradient[..., -1:] * self.mean[:, None]) / self.scale[:, None]
        penalised = position[..., :-1]
        loss += 0.5 * self.l2.double() * penalised.square().sum((1, 2), dtype=torch.float64)
        gradient[..., :-1] += self.l2[:, None, None] * penalised
        return loss, gradient


class SubspacePreconditioner:
    """Inverse of Boehning's bound on the Hessian, `(1/2) X^T X / N + l2 I`, on the features of every probe.

    D. Boehning, "Multinomial logistic regression algorithm", Ann. Inst. Stat. Math. 44 (1992): the bound holds
    everywhere, so a step along it never raises the loss. One factorisation per distinct mask and penalty.

    Args:
        x: `[N, D + 1]`; of more rows a subset is used, the bound need not be exact.
        feature_masks: bool `[G, D]`.
        l2: `[G]`.
    """

    def __init__(self, x: Tensor, feature_masks: Tensor, l2: Tensor) -> None:
        rows = x[:: max(1, len(x) // COVARIANCE_ROWS)]
        bound = (rows.T @ rows).double() * (0.5 / len(rows))
        self.width = x.shape[1]
        keys = torch.cat([feature_masks.double().cpu(), l2[:, None].cpu()], dim=1)
        unique, self.member = torch.unique(keys, dim=0, return_inverse=True)
        self.columns: list[Tensor] = []
        self.inverses: list[Tensor] = []
        for key in unique:
            columns = torch.cat([key[:-1].nonzero().squeeze(1), torch.tensor([x.shape[1] - 1])]).to(x.device)
            block = bound[columns[:, None], columns]
            # Collinear features without a penalty would leave it singular.
            block.diagonal().add_(float(key[-1]) + 1e-6)
            self.columns.append(columns)
            self.inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(block)).to(x))

    def select(self, kept: Tensor) -> SubspacePreconditioner:
        """The preconditioner of some of the probes."""
        part = object.__new__(SubspacePreconditioner)
        part.__dict__.update(self.__dict__)
        part.member = self.member[kept.cpu()]
        return part

    def __call__(self, gradient: Tensor) -> Tensor:
        """`P^-1 g` for gradients `[G, C, D + 1]`; zero at masked features."""
        out = torch.zeros_like(gradient)
        for number in self.member.unique().tolist():
            members = (self.member == number).nonzero().squeeze(1).to(gradient.device)
            columns, inverse = self.columns[number], self.inverses[number]
            whole = len(columns) == self.width
            block = gradient[members] if whole else gradient[members][..., columns]
            solved = (block.reshape(-1, block.shape[-1]) @ inverse).view_as(block)
            if whole:
                out[members] = solved
            else:
                out[members[:, None], :, columns] = solved.transpose(1, 2)
        return out
