"""Kidney function from creatinine. Both formulae are for adults; for anyone younger there is no answer here.

The formulae stand here as the documents named below print them; a change needs such a document again.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

from r1core_clinical_rules.units import Quantity, UnitError, unit

ADULT = Decimal(18)  # years; "Recommended method for estimating GFR in adults" (National Kidney Foundation, see below)
MICROMOL_PER_MG_DL = Decimal("88.4")  # creatinine, 1 mg/dL in µmol/L, as the project kineticGFR on GitHub states it


def ckd_epi_2021(creatinine: Quantity, age: Quantity, sex: str) -> Quantity:
    """Estimated glomerular filtration rate in mL/min/1.73m2, by the CKD-EPI creatinine equation of 2021.

    Inker, Eneanya, Coresh et al., New creatinine- and cystatin C-based equations to estimate GFR without race,
    N Engl J Med 2021;385:1737-1749, as printed by the National Kidney Foundation
    (https://kidney.org/ckd-epi-creatinine-equation-2021): 142 x min(Scr/κ, 1)^α x max(Scr/κ, 1)^-1.200 x 0.9938^age
    x 1.012 if female; Scr in mg/dL, κ 0.7 (female) or 0.9 (male), α -0.241 (female) or -0.302 (male).

    Raises
    ------
    UnitError : for an age under 18 years, a creatinine that is not above zero or in another unit.
    """
    years, scr, female = _years(age), _mg_dl(creatinine), sex == "female"
    kappa, alpha = (Decimal("0.7"), Decimal("-0.241")) if female else (Decimal("0.9"), Decimal("-0.302"))
    with localcontext() as context:
        context.prec = 28
        ratio = scr / kappa
        rate = 142 * min(ratio, Decimal(1)) ** alpha * max(ratio, Decimal(1)) ** Decimal("-1.200")
        rate *= Decimal("0.9938") ** years * (Decimal("1.012") if female else 1)
    return Quantity(rate, unit("mL/min/1.73m2"))


def cockcroft_gault(creatinine: Quantity, age: Quantity, sex: str, weight: Quantity) -> Quantity:
    """Estimated creatinine clearance in mL/min, by Cockcroft and Gault, with the weight as it is given.

    Cockcroft and Gault, Prediction of creatinine clearance from serum creatinine, Nephron 1976;16:31-41, as printed in
    Taber's Medical Dictionary ("Cockcroft-Gault formula"): (140 - age) (weight in kg) / (72 x serum creatinine),
    for women multiplied by 0.85; creatinine in mg/dL.

    Raises
    ------
    UnitError : as `ckd_epi_2021`; also for an age of 140 years or more.
    """
    years, scr = _years(age), _mg_dl(creatinine)
    if years >= 140:
        raise UnitError("an age of 140 years or more")
    with localcontext() as context:
        context.prec = 28
        rate = (140 - years) * weight.to("kg") / (72 * scr)
        rate *= Decimal("0.85") if sex == "female" else 1
    return Quantity(rate, unit("mL/min"))


def _years(age: Quantity) -> Decimal:
    if age.compare(Quantity(ADULT, unit("years"))) < 0:
        raise UnitError("an age under 18 years")
    with localcontext() as context:
        context.prec = 28
        value = age.base / unit("years").factor
        return Decimal(value.numerator) / Decimal(value.denominator)


def _mg_dl(creatinine: Quantity) -> Decimal:
    if creatinine.value <= 0:
        raise UnitError("a creatinine that is not above zero")
    if creatinine.comparable(unit("mg/dL")):
        return creatinine.to("mg/dL")
    with localcontext() as context:
        context.prec = 28
        return creatinine.to("umol/L") / MICROMOL_PER_MG_DL
