"""What papers and earlier code say the released sets hold, each number with its source.

Sources that disagree stand side by side; :func:`pslib.data.loading.describe` prints what was read beside them.
"""

__all__ = ["PUBLISHED"]

_ALIGNPS, _IAN = "AlignPS paper, sec. IV-A", "IAN paper, sec. V"
_CODE = "counted by released code"
_COUNTED = "counted in the AlignPS annotations"

# (kind, split, what) -> {source: number}; split "both" is train and test together.
PUBLISHED: dict[tuple[str, str, str], dict[str, int]] = {
    ("cuhk-sysu", "train", "images"): {_ALIGNPS: 11_206},
    ("cuhk-sysu", "train", "boxes"): {_CODE: 55_272},
    ("cuhk-sysu", "train", "people"): {_ALIGNPS: 5_532},
    ("cuhk-sysu", "test", "images"): {_ALIGNPS: 6_978},
    ("cuhk-sysu", "test", "boxes"): {_CODE: 40_871},
    ("cuhk-sysu", "test", "people"): {_ALIGNPS: 2_900},
    ("cuhk-sysu", "test", "queries"): {_ALIGNPS: 2_900},
    ("cuhk-sysu", "both", "images"): {_ALIGNPS: 18_184},
    ("cuhk-sysu", "both", "boxes"): {_ALIGNPS: 96_143, _IAN: 99_809},
    ("cuhk-sysu", "both", "people"): {_ALIGNPS: 8_432},
    ("prw", "train", "images"): {_ALIGNPS: 5_704},
    ("prw", "train", "boxes"): {_COUNTED: 18_048},
    ("prw", "train", "labelled boxes"): {_COUNTED: 14_907},
    ("prw", "train", "unlabelled boxes"): {_COUNTED: 3_141},
    ("prw", "train", "people"): {_COUNTED: 483, _ALIGNPS: 482, _IAN: 482},
    ("prw", "test", "images"): {_ALIGNPS: 6_112},
    ("prw", "test", "boxes"): {_COUNTED: 25_062},
    ("prw", "test", "labelled boxes"): {_COUNTED: 19_127},
    ("prw", "test", "unlabelled boxes"): {_COUNTED: 5_935},
    ("prw", "test", "people"): {_COUNTED: 544},
    ("prw", "test", "queries"): {_ALIGNPS: 2_057},
    ("prw", "both", "images"): {_ALIGNPS: 11_816},
    ("prw", "both", "boxes"): {_ALIGNPS: 43_110, _IAN: 43_110},
    ("prw", "both", "labelled boxes"): {_COUNTED: 34_034, _IAN: 34_304},
    ("prw", "both", "people"): {_ALIGNPS: 932},
}
