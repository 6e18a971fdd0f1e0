"""The numbers of the paper: Grund Pihlgren, Sandin and Liwicki, ICPR 2020, arXiv 2003.07441.

Data sets and procedures have the names that `benchmarks` gives them; `cnn` is the image encoder and
one hidden layer, trained on labels.
"""

# Table II: test measure of the best z, its mean and uncorrected standard deviation over 4 repeats.
# For LunarLander a distance whose unit the paper does not state, for the others an accuracy.
TABLE_2 = {
    "lunarlander": {
        "I-I-PW": (13.76, 5.08),
        "I-I-PS": (1.96, 0.18),
        "I-F-FP": (1.92, 0.22),
        "cnn": (8.10, 0.01),
    },
    "stl10": {
        "I-I-PW": (0.38, 0.00),
        "I-I-PS": (0.59, 0.00),
        "I-F-FP": (0.67, 0.01),
        "cnn": (0.48, 0.03),
    },
    "svhn": {
        "I-I-PW": (0.82, 0.00),
        "I-I-PS": (0.87, 0.00),
        "I-F-FP": (0.86, 0.00),
        "cnn": (0.89, 0.01),
    },
}

# Table II: the best accuracy that was known then.
STATE_OF_THE_ART = {"stl10": 0.94, "svhn": 0.99}

# The figure of each data set.
FIGURES = {"lunarlander": 6, "stl10": 7, "svhn": 8}

# Table I: accuracy on SVHN, z = 500, probes trained on the extra images, one repeat.
TABLE_1 = {"I-I-PW": 0.891, "I-I-PS": 0.913, "I-F-FP": 0.892}
TABLE_1_Z = 500

# Table I: Netzer et al. (2011), whose features the paper compares with.
TABLE_1_NETZER = 0.897

# Section VIII, which tells in words what figures 6 to 8 show: the share of the second's training
# time per epoch that the first takes.
TIME_RATIOS = {
    "lunarlander": ("FP", "PS", 0.60),
    "stl10": ("FP", "the other procedures", 0.75),
    "svhn": ("I-F-FP", "I-I-PS", 0.55),
}

# Section VI: the values of z that each procedure was run with, and how often.
Z = (64, 128, 256)
REPEATS = 4
