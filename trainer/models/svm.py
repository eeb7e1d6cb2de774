"""Support vector machine on summaries of the features."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class SvmSettings(BaseModel):
    """Kernel and cost, in scikit-learn's terms.

    `gamma` "scale" is one over the dimensions times their variance. `folds` is the number of
    groups of speakers across which scores are turned into probabilities.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["svm"] = "svm"
    kernel: Literal["rbf", "linear", "poly"] = "rbf"
    cost: float = Field(10.0, gt=0)
    gamma: Literal["scale", "auto"] | Annotated[float, Field(gt=0)] = "scale"
    degree: int = Field(3, ge=1, le=6)
    balanced: bool = True
    folds: int = Field(4, ge=2, le=20)


def estimator(settings: SvmSettings, seed: int) -> Any:
    """An unfitted scikit-learn machine.

    Source: Cortes and Vapnik, Support-Vector Networks, 1995.
    """
    from sklearn.svm import SVC

    return SVC(
        C=settings.cost,
        kernel=settings.kernel,
        gamma=settings.gamma,
        degree=settings.degree,
        class_weight="balanced" if settings.balanced else None,
        random_state=seed,
    )
