"""What methods are made of: types, checks, and mathematics on trees and matrices. No method lives here."""

from gradkit._core import versions

versions.check()
