"""The human evaluation: a rating test as a folder, a page that runs it, and what the ratings say.

`create_study` makes the folder, `StudyServer` shows it to raters and stores what they say, `analyse` gives mean opinion
scores. The method is absolute category rating with hidden reference (ACR-HR) of ITU-T P.910: one picture or video at a
time, rated on five points; the original is rated like any other, unnamed; practice comes first and is not analysed;
every rater gets an order of their own; some are shown twice, to see how consistent a rater is.

A study's folder holds

| file | what |
|---|---|
| study.json | the plan, see `plan.Study`; the server never gives it away |
| index.html | the page, which needs nothing else |
| media/ | what is shown, under random names |
| ratings.sqlite | the ratings, see `ratings.Ratings`; made when the study is first served |
"""

from keras_deartifact.study.analysis import Analysis, Opinion, RaterSummary, analyse, box_plot
from keras_deartifact.study.creation import create_study
from keras_deartifact.study.plan import Stimulus, Study, read_study
from keras_deartifact.study.ratings import Rating, Ratings
from keras_deartifact.study.server import StudyServer

__all__ = [
    "Analysis",
    "Opinion",
    "RaterSummary",
    "Rating",
    "Ratings",
    "Stimulus",
    "Study",
    "StudyServer",
    "analyse",
    "box_plot",
    "create_study",
    "read_study",
]
