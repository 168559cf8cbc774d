"""Truths and answers, by form: `==` where the answer is right, `!=` where it is not."""

from pathlib import Path

TABLE = r"""
# integers and thousands
42 == 42
42 != 43
42 == 42.0
42 == 042
-7 == -7
-7 == −7
-7 != 7
7 == +7
1234 == 1,234
1,234 == 1234
1234567 == 1,234,567
1234567 == 1 234 567
12345 == 12{,}345
12345 == 12\,345
1234 != 1.234
123456 != 123,45
1000 == 10^3
0 == -0
0 != 1
100000000000000000001 != 100000000000000000000
100000000000000000001 == 100,000,000,000,000,000,001
# decimals and fractions
0.5 == \frac{1}{2}
0.5 == 1/2
0.5 == .5
\frac{1}{2} == 0.5
\frac{1}{2} == 0.50
\frac{1}{2} == \frac{2}{4}
\frac12 == \dfrac{1}{2}
\frac{1}{2} == \tfrac12
\frac{1}{2} != \frac{1}{3}
\frac{1}{2} != 2
-\frac{3}{4} == \frac{-3}{4}
-\frac{3}{4} == -0.75
-\frac{3}{4} != 0.75
\frac{1}{3} == 0.333333
\frac{1}{3} == 0.3333333333
\frac{1}{3} != 0.33
\frac{1}{3} == 0.\overline{3}
\frac{5}{6} == 0.8\overline{3}
2.5 == 2\frac{1}{2}
2.5 == 2 1/2
2.5 == \frac{5}{2}
2.5 != 2\frac{1}{3}
1/7 == 0.142857
3.14 != 3.15
3.10 == 3.1
# percent
50% == 50%
50% == 0.5
50% == 50
50\% == \frac{1}{2}
50 == 50\%
50 == 50 percent
12.5\% == 12.5
12.5\% == 0.125
12.5\% != 12
50\% != 5
0.5 == 50\%
7 == 700\%
7 != 70\%
1% != 100%
100% != 1%
50% != 5000%
1% == 1
1% == 0.01
0.5 != 0.5\%
0.5\% == 0.005
0% == 0
50 != 500\%
\$50 != 50\%
# tiny numbers
1/3628800 != 0.0
\frac{1}{2000000} != 0.0
1e-7 != 0.0
1e-7 != 0
0.0 != 1e-7
1e-7 == 0.0000001
1/3628800 == 2.75573e-7
\frac{\pi}{100000000} != 0.0
(1, 10^{-8}) != (1, 0.0)
1/17 == 0.058824
0 == 0.0
# currency and units
3m != 3
2h != 2
5s != 5
3m^2 != 3
3m == 3m
3m == 2m+m
3m == m3
3 m == 3
3\text{m} == 3
3\mathrm{m} == 3 m
3 == 3m
5 km != 5 m
3km == 3
18 == $18
18 == \$18
18 == 18 dollars
$18 == \$18.00
18 == $18.00
1,200 == \$1,200
18 dollars == 18
18 dollars == $18
18 dollars != 18 cents
5 == 5 cm
5 == 5\text{ cm}
5 == 5\ \mathrm{cm}
5\text{ cm} == 5\,\text{cm}
5 cm == 5 centimeters
5 cm != 5 km
5 cm != 6 cm
60 == 60 miles
60 == 60 mph
60 == 60 miles per hour
12 == 12 apples
12 apples != 13 apples
90 == 90^\circ
90^\circ == 90
90^\circ == 90 degrees
90^\circ == 90°
24\text{ cm}^2 == 24
24 == 24 square meters
5 != 5x
2 != 2\pi
# numbers in words, and what is counted
5000000 == 5 million
5000000 == 5\text{ million}
5 million == 5,000,000
3500000 == 3.5 \text{ million}
3500000 == 3.5~\mathrm{million}
3500000 == \$3.5 million
3500000 == $3.5\text{ million}$
\$3.5 million == 3,500,000 dollars
3.5 million dollars == \$3500000
3.5 million dollars != 3500000 euros
-2 billion == -2000000000
2 million == 2 thousand thousand
2 Million == 2000 thousands
500 == 5 hundred
500000 == 5 hundred thousand
750000 == 3/4 million
2500000 == 2 1/2 million
1200000000 == 1.2 billion people
7 trillion == 7 \times 10^{12}
300000 == 3 lakh
5000000 == x = 5 million
(5000000, 2) == (5 million, 2)
(5, 2) != (5 million, 2)
5 != 5 million
5 million != 5
5 million != 5 billion
5 != 5 hundred
5 != 5 million people
3.5 != 3.5 \text{ thousand}
3.5 million != 3500001
2000000 != 2 million five hundred
200 != 2 hundred twenty
2 != 2 thirds
2 != 2 fifths of it
1 != 1 half
3 != 3 halves
5 != 5 tenths
2 thirds != 2
2 thirds == 2 thirds
3 != 3 squared
3 squared != 3
3 != 3 cubed
3 != 3 factorial
6 != 6 divided by two
6 != 6 raised to five
3 != 3 thirty-seconds
3 != 3 twenty-fifths
200 != 2 hundred-two
5 == 5 twenty-dollar bills
3 == 3 two-hour sessions
12 == 12 ten-minute breaks
2 == 2 hundred-dollar bills
7 == 7 eight-year-olds
4 == 4 one-way tickets
6 == 6 raised garden beds
4 == 4 divided highways
24 cm squared == 24
24 == 24 squared units
3 == 3 pairs
5 == 5 dozen
12 == 12 quarters
7 == 7 half-gallons
30 == 30 fourth grade boys
40 == 40 seconds
9 == 9 ones
# roots, powers and constants
2\sqrt{2} == \sqrt{8}
2\sqrt{2} == 2 \sqrt2
\sqrt{2} != 2
\sqrt{2} == 2^{1/2}
\frac{\sqrt{2}}{2} == \frac{1}{\sqrt{2}}
2\sqrt{3} == 2*sqrt(3)
2\sqrt{3} == 2√3
8 == 2^3
8 == 2**3
1.5\times 10^3 == 1500
1500 == 1.5 \cdot 10^{3}
6.02e3 == 6020
2\pi == 2 pi
2\pi == 2π
\frac{\pi}{4} == \pi/4
\pi != 3.14
\pi != 3
e^2 == e^{2}
\ln(e) == 1
\log_2 8 == 3
5! == 120
\binom{5}{2} == 10
10\sqrt{3}+2 == 2+10\sqrt{3}
\frac{3\sqrt{5}}{5} == \frac{3}{\sqrt{5}}
\frac{3\sqrt{5}}{5} != \frac{5}{3\sqrt{5}}
# algebra
x+1 == 1+x
x^2+2x+1 == (x+1)^2
x^2+2x+1 != (x-1)^2
2x == x+x
2x != 2y
3x+2y == 2y+3x
\frac{x+1}{2} == \frac{x}{2}+\frac{1}{2}
x^2-1 == (x-1)(x+1)
\sin^2 x+\cos^2 x == 1
\frac{1}{x} == x^{-1}
a^2b == b a^2
5 == x=5
x=5 == 5
x = 5 == x=5
x = 5 != x=6
y=2x+1 == y=2x+1
y=2x+1 == 2x+1
y=2x+1 != y=2x-1
7 == 3+4=7
x=5 != y=6
5 == q=5
5 == \theta=5
5 == AB=5
5 == f(2)=5
5 == x==5
2 != x+y=2
2 != 0x=2
x+y=2 != 2
x^2+y^2=1 != 1
x=y=2 == 2
1,2 == x=1, y=2
(1,2) == x=1, y=2
(1,2) != x=2, y=1
(1,2) == (x,y)=(1,2)
-2, 2 == x=-2 or x=2
3 != x=2 or x=3
x+y=2 == y=2-x
1,234x == 1234x
1{,}234x == 1234x
\frac{1,000}{3} == \frac{1000}{3}
# complex numbers
3+4i == 4i+3
3+4i != 3-4i
2i != 2
# intervals
[0,1) == [0, 1)
[0,1) != [0,1]
[0,1) != (0,1]
(0,1) != [0,1]
(-\infty,3) == (-\infty, 3)
(-\infty,3) == x<3
(-\infty,3) != (-\infty,3]
x \in [1,2] == [1,2]
[1,2] == 1\le x\le 2
[1,2] != 1<x<2
(-\infty,1)\cup(2,\infty) == (2,\infty)\cup(-\infty,1)
(-\infty,1)\cup(2,\infty) != (-\infty,1)\cup[2,\infty)
[2,\infty) == [2, ∞)
x>3 == 3<x
x>3 != x\ge 3
# sets, tuples and lists
\{1,2,3\} == \{3,2,1\}
\{1,2,3\} != \{1,2\}
\{1,2\} == 1,2
1,2 == 2,1
1, 2 == 1 and 2
1, 2 == 2 or 1
1,2 != 1,3
1,2 != 1
1 != 1,2
2 != 2 or 3
\pm 2 == 2,-2
\pm 2 != 2
-2, 2 == \pm 2
(1,2) == (1, 2)
(1,2) == \left(1,2\right)
(1,2) != (2,1)
(1,2,3) == (1, 2, 3)
(1,2,3) != (3,2,1)
(\frac{1}{2}, 3) == (0.5, 3)
(3,\frac{\pi}{2}) == (3, \pi/2)
\{100, 200\} == \{100,200\}
\{1,200\} != \{1200\}
\{1,200\} == \{200, 1\}
[100, 200] == [100,200]
[1,200] != [1200]
(1,200) == (1, 200)
(1,200,3) == (1, 200, 3)
(1,200) != (1200)
(\frac{1}{2},200) == (0.5, 200)
\{(1,200),(3,400)\} == \{(3, 400), (1, 200)\}
3,4,100 == 3, 4, 100
(1,2) != \{1,2\}
\{1,2\} != (1,2)
[1,2] != \{1,2\}
[1,2,3] != (1,2,3)
3,4 != (4,3)
3,4 == (3,4)
(3,4) == 3,4
(4,3) != 3,4
\{1,2\} == 2 and 1
\{(1,2),(3,4)\} == (3,4),(1,2)
\emptyset == \varnothing
\emptyset == ∅
\emptyset != \{0\}
# matrices and vectors
\begin{pmatrix}1&2\\3&4\end{pmatrix} == \begin{bmatrix}1&2\\3&4\end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} != \begin{pmatrix}1&3\\2&4\end{pmatrix}
\begin{pmatrix}1\\2\end{pmatrix} == \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\begin{pmatrix}1/2\\2\end{pmatrix} == \begin{pmatrix} 0.5 \\ 2 \end{pmatrix}
# words
\text{Tuesday} == Tuesday
Tuesday == tuesday
Tuesday == \textbf{Tuesday}
Tuesday != Thursday
listen != silent
\text{even} == even
yes != no
\text{yes} == Yes.
infinity == \infty
12:30 == 12:30
12:30 != 12:31
# delimiters and forms of LaTeX
42 == $42$
42 == \(42\)
42 == \[42\]
42 == $$42$$
42 == **42**
42 == 42.
\frac{1}{2} == $\frac{1}{2}$
42 == \text{42}
42 == \mathbf{42}
\left(\frac{1}{2}\right) == \frac{1}{2}
\frac{a}{b} == a/b
2\cdot 3 == 6
2 \times 3 == 6
\frac{\frac{1}{2}}{2} == \frac{1}{4}
|{-5}| == 5
"""


KINDS = Path(__file__).with_name("answer_pairs_kinds.txt")
"""More pairs in the same form: kinds that once gave a wrong value, with their neighbours."""


def pairs(table: str = TABLE) -> list[tuple[str, str, bool]]:
    """(truth, answer, whether the answer is right)."""
    found = []
    for line in table.strip().splitlines():
        if line.startswith("# "):
            continue
        equal = " == " in line
        truth, answer = line.split(" == " if equal else " != ")
        found.append((truth, answer, equal))
    return found
