"""Random forest on summaries of the features."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ForestSettings(BaseModel):
    """Trees and how they are grown, in scikit-learn's terms; `max_depth` 0 is no limit.

    A tree's leaves weigh classes as if all were as frequent unless `balanced` is false.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["forest"] = "forest"
    trees: int = Field(300, ge=1, le=2000)
    max_depth: int = Field(0, ge=0)
    min_leaf: int = Field(2, ge=1)
    max_features: Literal["sqrt", "log2"] = "sqrt"
    criterion: Literal["gini", "entropy"] = "gini"
    balanced: bool = True


def estimator(settings: ForestSettings, seed: int) -> Any:
    """An unfitted scikit-learn forest. Source: Breiman, Random Forests, 2001."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=settings.trees,
        max_depth=settings.max_depth or None,
        min_samples_leaf=settings.min_leaf,
        max_features=settings.max_features,
        criterion=settings.criterion,
        class_weight="balanced" if settings.balanced else None,
        random_state=seed,
    )
