"""The two commands of a course: make the student version of a problem set, and grade what comes back."""
import argparse
import sys

from .student import SourceError, write_student_versions


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m flowlib.exercises", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    student = commands.add_parser("student", help="write the student version, without solutions")
    student.add_argument("source", help="the source notebook, or a folder of them")
    student.add_argument("target")
    grade = commands.add_parser("grade", help="grade a folder or a zip file of notebooks")
    grade.add_argument("submissions", help="the folder, or a zip file")
    grade.add_argument("out")
    grade.add_argument("--set", dest="name", help="the problem set; by default found by the functions in the notebooks")
    grade.add_argument("--seed", type=int, help="of the inputs; by default another one in every run")
    grade.add_argument("--jobs", type=int, help="children at a time; by default the number of processors")
    grade.add_argument("--no-isolation", action="store_true", help="do without namespaces (in a container of your own)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "student":
            for path in write_student_versions(options.source, options.target):
                print(path)
        else:
            from .grade import grade as run  # needs torch and an operating system with fork
            run(options.submissions, options.out, options.name, options.seed, options.jobs, not options.no_isolation,
                say=lambda line: print(line, file=sys.stderr if line.startswith("warning") else sys.stdout))
    except (SourceError, ValueError, OSError) as error:
        parser.exit(2, f"{options.command}: {error}\n")
    except ImportError as error:
        parser.exit(2, f"{options.command}: {error}. Grading needs Linux or macOS; on Windows use WSL\n")
    except KeyboardInterrupt:
        parser.exit(130)


if __name__ == "__main__":
    main()
