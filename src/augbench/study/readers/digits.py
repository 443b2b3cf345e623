"""The built-in world, which a study makes itself, in a folder of its own."""

from augbench.study.readers.folder import Folder


class Digits(Folder):
    name = "digits"
    meaning = "the built-in world"
    is_built_in = True
    known_classes = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    known_splits = ("test",)
    scans = 1797

    def known_counts(self, digits):
        left = self.scans - digits.test - digits.web_scans
        share, rest = divmod(left, len(self.known_classes))
        return [share + (place < rest) for place in range(len(self.known_classes))], {"test": digits.test}

    def fits(self, path):
        return False
